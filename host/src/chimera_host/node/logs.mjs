// JSON lines on standard output; whatever an agent prints is attributed to its call.

import { AsyncLocalStorage } from "node:async_hooks";
import util from "node:util";

export const running = new AsyncLocalStorage();

const put = process.stdout.write.bind(process.stdout);
let fixed = {};

export function configure(fields) {
  fixed = fields;
  for (const [method, level] of [["log", "info"], ["info", "info"], ["debug", "debug"], ["warn", "warning"], ["error", "error"]])
    console[method] = (...said) => write(level, util.format(...said), { logger: "agent" });
  for (const [stream, level] of [[process.stdout, "info"], [process.stderr, "warning"]])
    stream.write = (data, encoding, done) => {
      for (const line of data.toString().split("\n").filter(Boolean)) write(level, line, { logger: "agent" });
      (typeof encoding === "function" ? encoding : done)?.();
      return true;
    };
}

export function write(level, message, extra = {}) {
  const request = running.getStore()?.request;
  const call = request
    ? { request: request.call, tenant: request.tenant, agent: request.agent, revision: request.revision }
    : {};
  const line = { time: new Date().toISOString(), level, process: "host", message: String(message).slice(0, 8192) };
  put(JSON.stringify({ ...line, ...fixed, ...call, ...extra }) + "\n");
}
