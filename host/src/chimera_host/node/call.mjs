// One running call: its deadline, its cancellation, its model calls, and the events that a streaming caller gets.

import { callCancelled, deadlineExceeded } from "./problem.mjs";

export class Call {
  constructor(request, config, platform, traceparent) {
    Object.assign(this, { request, platform, traceparent, modelCalls: 0, modelSeconds: 0, loaded: false });
    this.document = undefined; // known once the agent is loaded
    this.listener = undefined; // set while the caller streams
    this.session = { messages: request.session?.messages ?? [], values: request.session?.values ?? {} };
    this.began = performance.now();
    const seconds = Math.min(request.deadline, config.request_timeout);
    this.end = this.began + seconds * 1000;
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.timer = setTimeout(() =>
      this.cancel(deadlineExceeded(`agent ${request.agent} did not answer within ${seconds} s`, { agent: request.agent })), seconds * 1000);
  }

  get prompt() {
    return this.request.messages.at(-1).content;
  }

  remaining() {
    if (this.signal.aborted) throw this.signal.reason;
    return Math.max(0.001, (this.end - performance.now()) / 1000);
  }

  // A chat-completions request as OpenAI defines it; the model and its settings are the definition's unless said otherwise.
  async chat(body) {
    const began = performance.now();
    this.modelCalls += 1;
    try {
      return await this.platform.chat(this, { ...this.choice(), ...body });
    } finally {
      this.modelSeconds += (performance.now() - began) / 1000;
    }
  }

  choice() {
    const { name = "default", ...settings } = this.document?.model ?? {};
    return { ...settings, model: this.request.model_override ?? name };
  }

  emit(text, source) {
    this.listener?.("delta", source ? { text: String(text), source } : { text: String(text) });
  }

  cancel(reason = callCancelled("the call was cancelled", { agent: this.request.agent })) {
    this.controller.abort(reason);
  }

  close() {
    clearTimeout(this.timer);
  }

  // The agent may ignore the signal: whoever waits for it doesn't.
  outcome(work) {
    return new Promise((resolve, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason), { once: true });
      work.then(resolve, (error) => reject(this.signal.aborted ? this.signal.reason : error));
    });
  }
}
