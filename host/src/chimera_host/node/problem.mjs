// Errors with a stable code and an HTTP status, as RFC 9457 problem documents: the same as the Python host's.

export class HostProblem extends Error {
  constructor(code, status, title, detail, extra = {}) {
    super(detail);
    Object.assign(this, { code, status, title, nextStep: extra.nextStep, retryAfter: extra.retryAfter });
    this.agent = extra.agent;
  }

  document(request) {
    const made = {
      type: `urn:chimera:error:${this.code}`, title: this.title, status: this.status, detail: this.message, code: this.code,
    };
    if (this.nextStep) made.next_step = this.nextStep;
    if (this.retryAfter !== undefined) made.retry_after = this.retryAfter;
    if (this.agent) made.agent = this.agent;
    if (request) made.request = request;
    return made;
  }
}

const kind = (code, status, title) => (detail, extra) => new HostProblem(code, status, title, detail, extra);

export const agentBusy = kind("agent-busy", 429, "The agent is busy");
export const agentFailed = kind("agent-failed", 502, "The agent failed");
export const agentLoadFailed = kind("agent-load-failed", 500, "The agent could not be loaded");
export const bundleRefused = kind("bundle-refused", 422, "The source bundle was refused");
export const callCancelled = kind("call-cancelled", 499, "The call was cancelled");
export const callTooLarge = kind("call-too-large", 413, "The call is too large");
export const deadlineExceeded = kind("deadline-exceeded", 504, "The call took too long");
export const hostBusy = kind("host-busy", 503, "The host is full");
export const hostDraining = kind("host-draining", 503, "The host is shutting down");
export const hostFailed = kind("internal", 500, "The host failed");
export const invalidCall = kind("invalid-call", 400, "The call is not valid");
export const modelFailed = kind("model-failed", 502, "The model failed");
export const notFound = kind("not-found", 404, "There is no such thing here");
export const platformAway = kind("platform-unavailable", 503, "The platform is away");
export const unauthorized = kind("unauthorized", 401, "A valid key is needed");

export function remote(document, status) {
  const made = new HostProblem(document.code ?? "internal", document.status ?? status, document.title ?? "The platform failed",
    document.detail ?? `the platform answered ${status}`, { nextStep: document.next_step, retryAfter: document.retry_after });
  made.agent = document.agent;
  return made;
}
