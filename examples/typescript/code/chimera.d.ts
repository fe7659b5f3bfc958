// Types for agents in TypeScript: copy this file beside yours, and write `import type { Call, Context } from "./chimera.d.ts"`.

/** One message of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** What the entry point is given, once. */
export interface Context {
  /** The agent's definition as it was compiled. */
  document: { tenant: string; name: string; version: string; description: string; [field: string]: unknown };
  /** A folder of the agent's own. */
  workDir: string;
}

/** A chat completion's answer as OpenAI defines it. */
export interface ChatAnswer {
  choices: { message: { role: "assistant"; content: string | null }; finish_reason: string }[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

/** One running call. */
export interface Call {
  /** What the session kept from the call before. */
  readonly session: { messages: Message[]; values: Record<string, unknown> };
  /** Aborted when the deadline has passed or the caller went away. */
  readonly signal: AbortSignal;
  /** Seconds left; throws when there are none. */
  remaining(): number;
  /** One call of the agent's model. */
  chat(body: { messages: Message[]; [field: string]: unknown }): Promise<ChatAnswer>;
  /** A piece of the answer for a caller that streams. */
  emit(text: string, source?: string): void;
}

/** The answer: its text, or with `values` to keep in the session. */
export type Result = string | { output: string; values?: Record<string, unknown> };

/** What the entry point returns. */
export type Agent = (prompt: string, call: Call) => Result | Promise<Result>;
