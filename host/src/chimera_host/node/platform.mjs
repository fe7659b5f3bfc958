// The gateway's internal API: revisions, bundles, model calls. One pool of kept-alive connections.
//
// A call may say which gateway made it (`platform_url`): of several, that one alone knows it, so what is asked on its
// behalf is asked there. A pod has no token at first: it shows what proves who it is to its cluster, at its start and
// whenever its token is taken no more, as chimera_host/renewal.py has it.

import fs from "node:fs";
import http from "node:http";

import { write } from "./logs.mjs";
import { modelFailed, platformAway, remote } from "./problem.mjs";

const MOST_BYTES = 300 * 1024 * 1024;
const TOKEN = "/internal/v1/token", FIRST_PAUSE = 100, LONGEST_PAUSE = 5_000;

export class Platform {
  constructor(url, token, identityFile) {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
    this.headers = { authorization: `Bearer ${token}` };
    this.base = place(url);
    this.identityFile = identityFile;
  }

  async revision(digest, at) {
    return JSON.parse(await this.send("GET", `/internal/v1/revisions/${encodeURIComponent(digest)}`, { at }));
  }

  bundle(digest, at) {
    return this.send("GET", `/internal/v1/bundles/${encodeURIComponent(digest)}`, { at });
  }

  async chat(call, body) {
    const headers = { "chimera-call": call.request.call, "chimera-deadline": String(call.remaining()) };
    if (call.traceparent) headers.traceparent = call.traceparent;
    const data = await this.send("POST", "/internal/v1/chat/completions",
      { headers, body: JSON.stringify(body), signal: call.signal, at: call.request.platform_url });
    const answer = JSON.parse(data);
    if (!answer?.choices?.[0]?.message) throw modelFailed("the model's answer holds no message");
    return answer;
  }

  // A fresh token for the one that is shown, or for the pod's identity.
  async renew(identity) {
    if (identity !== undefined) this.headers = { authorization: `Bearer ${identity}` };
    const fresh = JSON.parse(await this.send("POST", TOKEN, { body: "" }));
    this.headers = { authorization: `Bearer ${fresh.token}` };
    return fresh;
  }

  // What a pod must know before it takes calls: its name, its cell and its key. Tried until the gateway answers.
  async introduce() {
    for (let wait = FIRST_PAUSE, said = false; ; wait = Math.min(LONGEST_PAUSE, 2 * wait)) {
      try {
        const fresh = await this.renew(this.identity());
        if (fresh.host_key) return { host: fresh.host, cell: fresh.cell, host_key: fresh.host_key };
        throw new Error("the gateway gave no key");
      } catch (error) {
        if (!said) write("warning", "the host is not known yet", { code: error?.code, error: String(error?.message ?? error) });
        said = true;
      }
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  // A third of its life after each renewal the token is changed for a fresh one.
  async keepFresh(first = 60_000) {
    let wait = first, refused = false;
    for (;;) {
      await new Promise((done) => setTimeout(done, wait).unref());
      try {
        const { expires_in: life } = await this.renew(refused && this.identityFile ? this.identity() : undefined);
        wait = Math.min(Math.max((life * 1000) / 3, 10_000), 3_600_000);
        refused = false;
      } catch (error) {
        wait = 15_000;
        refused = error?.status === 401 || error?.status === 403;
        write("warning", "the host's token was not renewed", { code: error?.code, error: String(error?.message ?? error) });
      }
    }
  }

  // The token that the cluster keeps fresh in that file.
  identity() {
    return fs.readFileSync(this.identityFile, "utf8").trim();
  }

  send(method, path, { headers = {}, body, signal, at } = {}) {
    return new Promise((resolve, reject) => {
      const base = at ? place(at) : this.base;
      const all = { ...this.headers, ...headers };
      if (body !== undefined) Object.assign(all, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
      const request = http.request({ ...base, method, path, headers: all, agent: this.agent, signal }, (response) => {
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

function place(url) {
  if (url.startsWith("unix:")) return { socketPath: url.slice(5), host: "platform" };
  const { hostname, port } = new URL(url);
  return { host: hostname, port: port || 80 };
}
