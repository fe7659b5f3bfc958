// `make` is called once, when the agent is loaded; what it returns is called for each call of the agent.

import type { Agent, Call, Context } from "./chimera.d.ts";

type Urgency = "now" | "today" | "later";
type Counts = Record<Urgency, number>;

const WORDS: [Urgency, RegExp][] = [
  ["now", /\b(fire|smoke|leak|bleeding|outage|down)\b/i],
  ["today", /\b(broken|fails?|error|late|stuck)\b/i],
];

export function urgencyOf(report: string): Urgency {
  return WORDS.find(([, words]) => words.test(report))?.[0] ?? "later";
}

export function make({ document }: Context): Agent {
  console.log(`${document.name} is loaded`);

  return async (prompt: string, call: Call) => {
    const urgency = urgencyOf(prompt);
    const before = (call.session.values.counts ?? { now: 0, today: 0, later: 0 }) as Counts;
    const counts: Counts = { ...before, [urgency]: before[urgency] + 1 };
    const answer = await call.chat({
      messages: [
        { role: "system", content: `${document.description} This one is for: ${urgency}.` },
        { role: "user", content: prompt },
      ],
    });
    const output = `${urgency} (${counts[urgency]}): ${answer.choices[0]?.message.content ?? ""}`;
    call.emit(output);
    return { output, values: { counts } };
  };
}
