// `make` is called once, when the agent is loaded; what it returns is called for each call of the agent.

export function make({ document }) {
  console.log(`${document.name} is loaded`);

  return async (prompt, call) => {
    const number = (call.session.values.number ?? 0) + 1;
    const answer = await call.chat({
      messages: [
        { role: "system", content: document.description },
        { role: "user", content: prompt },
      ],
    });
    const text = `${number}: ${answer.choices[0].message.content}`;
    call.emit(text);
    return { output: text, values: { number } };
  };
}
