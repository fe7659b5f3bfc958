// The gateway's internal API: revisions, bundles, model calls. One pool of kept-alive connections.

import http from "node:http";

import { write } from "./logs.mjs";
import { modelFailed, platformAway, remote } from "./problem.mjs";

const MOST_BYTES = 300 * 1024 * 1024;

export class Platform {
  constructor(url, token) {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
    this.headers = { authorization: `Bearer ${token}` };
    if (url.startsWith("unix:")) this.base = { socketPath: url.slice(5), host: "platform" };
    else {
      const { hostname, port } = new URL(url);
      this.base = { host: hostname, port: port || 80 };
    }
  }

  revision(digest) {
    return this.send("GET", `/internal/v1/revisions/${encodeURIComponent(digest)}`, {}).then((data) => JSON.parse(data));
  }

  bundle(digest) {
    return this.send("GET", `/internal/v1/bundles/${encodeURIComponent(digest)}`, {});
  }

  async chat(call, body) {
    const headers = { "chimera-call": call.request.call, "chimera-deadline": String(call.remaining()) };
    if (call.traceparent) headers.traceparent = call.traceparent;
    const data = await this.send("POST", "/internal/v1/chat/completions", headers, JSON.stringify(body), call.signal);
    const answer = JSON.parse(data);
    if (!answer?.choices?.[0]?.message) throw modelFailed("the model's answer holds no message");
    return answer;
  }

  // A third of its life after each renewal the token is changed for a fresh one, as chimera_host/renewal.py has it.
  async keepFresh(first = 60_000) {
    let wait = first;
    for (;;) {
      await new Promise((done) => setTimeout(done, wait).unref());
      try {
        const { token, expires_in: life } = JSON.parse(await this.send("POST", "/internal/v1/token", {}, ""));
        this.headers = { authorization: `Bearer ${token}` };
        wait = Math.min(Math.max((life * 1000) / 3, 10_000), 3_600_000);
      } catch (error) {
        wait = 15_000;
        const why = String(error?.detail ?? error?.message ?? error);
        write("warning", "the host's token was not renewed", { error: why });
      }
    }
  }

  send(method, path, headers, body, signal) {
    return new Promise((resolve, reject) => {
      const all = { ...this.headers, ...headers };
      if (body !== undefined) Object.assign(all, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
      const request = http.request({ ...this.base, method, path, headers: all, agent: this.agent, signal }, (response) => {
        const parts = [];
        let size = 0;
        response.on("data", (part) => {
          size += part.length;
          if (size > MOST_BYTES) response.destroy(new Error("the answer is too large"));
          else parts.push(part);
        });
        response.on("error", reject);
        response.on("end", () => {
          const data = Buffer.concat(parts);
          if (response.statusCode < 400) return resolve(data);
          try {
            reject(remote(JSON.parse(data), response.statusCode));
          } catch {
            reject(remote({}, response.statusCode));
          }
        });
      });
      request.on("error", (error) =>
        reject(signal?.aborted ? signal.reason : platformAway(`the platform can't be reached: ${error.message}`, { retryAfter: 1 })));
      request.end(body);
    });
  }
}
