// The process that runs agents written in JavaScript: the same HTTP contract as the Python host, without dependencies.
//
//   node host.mjs --config-fd N --listen-fd N --lifeline-fd N     one machine: configuration as JSON from a descriptor
//   node host.mjs                                                 Knative: CHIMERA_* variables and $PORT
//
// A pod listens once it knows its key: until then its readiness probe fails, and nobody calls it.
//
// JavaScript has one thread: an agent that never gives it back stops the host, its liveness probe fails, the node agent
// replaces it, and the black box names the agent.

import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { timingSafeEqual } from "node:crypto";
import { parseArgs } from "node:util";

import { Agents, result } from "./agents.mjs";
import { BlackBox } from "./blackbox.mjs";
import { Call } from "./call.mjs";
import { configure, running, write } from "./logs.mjs";
import { Platform } from "./platform.mjs";
import {
  HostProblem, agentFailed, callCancelled, callTooLarge, hostBusy, hostDraining, hostFailed, invalidCall, notFound, unauthorized,
} from "./problem.mjs";

const COMMENT_EVERY = 15_000, EXIT_DRAINED = 0, EXIT_CRASHED = 1, EXIT_USAGE = 64, EXIT_LIFELINE = 80, SPARE_SLOTS = 16;
const DEFAULTS = {
  port: 8080, memory_bytes: 2 * 1024 ** 3, concurrency: 100, idle_unload: 300, request_timeout: 590, stream_idle: 120,
  grace: 10, drain: 595, max_body_bytes: 16 * 1024 ** 2,
};

const TEXTS = ["host", "cell", "framework", "platform_url", "platform_token", "host_key", "identity_file", "work_dir", "black_box"];

class Host {
  constructor(config, platform) {
    this.config = config;
    this.platform = platform;
    this.agents = new Agents(this.config, this.platform);
    this.calls = new Map();
    this.outcomes = new Map();
    this.draining = false;
    this.key = Buffer.from(`Bearer ${this.config.host_key}`);
    this.box = config.black_box ? new BlackBox(config.black_box, this.config.concurrency + SPARE_SLOTS) : undefined;
    setInterval(() => this.box?.beat(), 500).unref();
    void this.platform.keepFresh();
    setInterval(() => this.agents.unloadIdle(), Math.min(30_000, this.config.idle_unload * 500)).unref();
  }

  async handle(request, response) {
    try {
      const path = request.url.split("?")[0];
      if (path === "/livez") return text(response, 200, "ok\n");
      if (path === "/readyz") return this.draining ? text(response, 503, "draining\n") : text(response, 200, "ready\n");
      const shown = Buffer.from(request.headers.authorization ?? "");
      if (shown.length !== this.key.length || !timingSafeEqual(shown, this.key))
        throw unauthorized("the request doesn't show this host's key", { nextStep: "call agents through the gateway" });
      if (request.method === "POST" && path === "/v1/invoke") return await this.invoke(request, response);
      if (request.method === "POST" && path === "/v1/load") return await this.load(request, response);
      if (request.method === "GET" && path === "/v1/loaded") return json(response, 200, this.report());
      if (request.method === "GET" && path === "/metrics") return text(response, 200, this.metrics());
      if (request.method === "DELETE" && path.startsWith("/v1/calls/")) return this.cancel(path.slice(10), response);
      throw notFound(`a host has no ${request.method} ${path}`);
    } catch (error) {
      problem(response, known(error));
    }
  }

  async invoke(incoming, response) {
    const request = parse(await body(incoming, this.config.max_body_bytes));
    this.admit(request);
    const call = new Call(request, this.config, this.platform, incoming.headers.traceparent);
    this.calls.set(request.call, call);
    const slot = this.box?.begin(request);
    call.signal.addEventListener("abort", () => this.box?.markCancelled(slot), { once: true });
    response.on("close", () => {
      if (!response.writableFinished) call.cancel(callCancelled("the caller went away", { agent: request.agent }));
    });
    let outcome = "ok";
    try {
      const work = running.run(call, () => this.answer(call));
      // The call is over for the caller when it is cancelled; for the black box when the agent is done.
      work.catch(() => {}).finally(() => {
        this.box?.end(slot);
        this.calls.delete(request.call);
      });
      if (request.stream) await this.stream(call, response, call.outcome(work));
      else json(response, 200, await call.outcome(work));
    } catch (error) {
      const made = known(error, request.agent);
      outcome = made.code;
      running.run(call, () => write("info", "call failed", { code: made.code, problem: made.message }));
      if (!response.headersSent) problem(response, made, request.call);
      else event(response, "error", made.document(request.call)), response.end();
    } finally {
      call.close();
      this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    }
  }

  async load(incoming, response) {
    const request = json_of(await body(incoming, this.config.max_body_bytes));
    named(request, ["tenant", "agent", "revision"]);
    if (this.draining) throw hostDraining(`host ${this.config.host} takes no more calls`, { retryAfter: 1 });
    await this.agents.warm(request);
    response.writeHead(204).end();
  }

  async stream(call, response, answer) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    call.listener = (name, data) => event(response, name, data);
    const comments = setInterval(() => response.write(": still here\n\n"), COMMENT_EVERY);
    try {
      event(response, "done", await answer);
      response.end();
    } finally {
      clearInterval(comments);
    }
  }

  async answer(call) {
    const { request } = call;
    const began = performance.now();
    const entry = await this.agents.take(call);
    call.document = entry.document;
    const loaded = performance.now();
    try {
      const given = result(await entry.run(call.prompt, call), request.agent);
      return reply(this.config.host, call, given, (loaded - began) / 1000, (performance.now() - loaded) / 1000);
    } finally {
      this.agents.release(entry);
    }
  }

  admit(request) {
    const { host, concurrency } = this.config;
    if (this.draining) throw hostDraining(`host ${host} takes no more calls`, { retryAfter: 1 });
    if (this.calls.size >= concurrency)
      throw hostBusy(`host ${host} has ${this.calls.size} calls, as many as it takes`, { retryAfter: 1 });
    if (this.calls.has(request.call)) throw invalidCall(`call ${request.call} runs already`);
  }

  cancel(id, response) {
    const call = this.calls.get(decodeURIComponent(id));
    if (call === undefined) throw notFound(`no call ${id} runs here`, { nextStep: "it may have ended" });
    call.cancel(callCancelled("the call was cancelled on request", { agent: call.request.agent }));
    response.writeHead(202).end();
  }

  async drain(server) {
    if (this.draining) return;
    this.draining = true;
    write("info", "host drains", { in_flight: this.calls.size });
    await this.empty(this.config.drain);
    for (const call of this.calls.values()) call.cancel();
    await this.empty(this.config.grace);
    server.close();
    process.exit(EXIT_DRAINED);
  }

  async empty(seconds) {
    const end = performance.now() + seconds * 1000;
    while (this.calls.size > 0 && performance.now() < end) await new Promise((done) => setTimeout(done, 20));
    await new Promise((done) => setTimeout(done, 20)); // the last answer's bytes
  }

  report() {
    return {
      host: this.config.host, framework: this.config.framework, loaded: this.agents.loaded.size,
      agents: [...this.agents.loaded].reverse().slice(0, 1000).map(([revision, { document, calls, used }]) => ({
        tenant: document.tenant, agent: document.name, revision, calls, idle_seconds: (Date.now() - used) / 1000,
      })),
      in_flight: this.calls.size, resident_bytes: process.memoryUsage.rss(), limit_bytes: this.config.memory_bytes,
      evictions: this.agents.evictions,
    };
  }

  metrics() {
    const outcomes = [...this.outcomes].map(([name, count]) => `chimera_host_calls_total{outcome="${name}"} ${count}`);
    return ["# TYPE chimera_host_calls_total counter", ...outcomes, "# TYPE chimera_host_in_flight gauge",
      `chimera_host_in_flight ${this.calls.size}`, "# TYPE chimera_host_loaded_agents gauge",
      `chimera_host_loaded_agents ${this.agents.loaded.size}`, "# TYPE chimera_host_resident_bytes gauge",
      `chimera_host_resident_bytes ${process.memoryUsage.rss()}`, ""].join("\n");
  }
}

function reply(host, call, given, load, run) {
  const { request } = call;
  const made = {
    output: given.output, call: request.call, agent: request.agent, revision: request.revision, host,
    messages: given.messages ?? [], model_calls: call.modelCalls,
    timings: { load: call.loaded ? load : 0, run, model: call.modelSeconds, tools: 0, loaded: call.loaded },
  };
  if (request.session) {
    const said = given.messages?.length ? given.messages : [{ role: "assistant", content: given.output }];
    made.session = {
      messages: [...call.session.messages, ...request.messages, ...said], values: given.values ?? call.session.values,
    };
  }
  return made;
}

function json_of(data) {
  try {
    return JSON.parse(data);
  } catch (error) {
    throw invalidCall(`the body is not a call: ${error.message}`, { nextStep: "see chimera_host.contract.call" });
  }
}

function named(request, texts) {
  const wrong = texts.find((name) => typeof request?.[name] !== "string");
  if (wrong) throw invalidCall(`the body is not a call: ${wrong} is not a text`);
}

function parse(data) {
  const request = json_of(data);
  named(request, ["call", "tenant", "agent", "revision"]);
  if (!(Number(request.deadline) > 0)) throw invalidCall("the body is not a call: deadline is not a number of seconds");
  const messages = request.messages;
  if (!Array.isArray(messages) || !messages.length || messages.some((one) => typeof one?.content !== "string"))
    throw invalidCall("a call needs at least one message", { nextStep: "send the caller's text in `messages`" });
  const session = request.session ?? {};
  if (typeof session !== "object" || !Array.isArray(session.messages ?? []) || typeof (session.values ?? {}) !== "object")
    throw invalidCall("the body is not a call: session is not a session");
  return request;
}

function body(request, limit) {
  return new Promise((resolve, reject) => {
    const parts = [];
    let size = 0;
    request.on("data", (part) => {
      size += part.length;
      if (size <= limit) parts.push(part);
      else reject(callTooLarge(`the body is larger than ${limit} bytes`, { nextStep: "send less" }));
    });
    request.on("end", () => resolve(Buffer.concat(parts).toString("utf8")));
    request.on("error", reject);
  });
}

function known(error, agent) {
  if (error instanceof HostProblem) return error;
  if (agent === undefined) return hostFailed(`the host failed: ${error?.name}`, { nextStep: "see the host's log" });
  write("warning", error?.stack ?? String(error));
  return agentFailed(`agent ${agent} raised ${error?.name ?? "an error"}: ${error?.message ?? error}`,
    { agent, nextStep: "see `chimera logs` for the traceback" });
}

function problem(response, error, call) {
  const headers = { "content-type": "application/problem+json" };
  if (error.retryAfter !== undefined) headers["retry-after"] = String(Math.max(1, Math.round(error.retryAfter)));
  response.writeHead(error.status, headers).end(JSON.stringify(error.document(call)));
}

const event = (response, name, data) => response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
const json = (response, status, data) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(data));
const text = (response, status, said) => response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(said);

// Fields of chimera_host.config.HostConfig, from CHIMERA_ and their names in capitals; those of the platform that the Node
// host has no use for are let go.
function environment(environ) {
  const found = { host: environ.HOSTNAME ?? "host", framework: "function", work_dir: path.join(os.tmpdir(), "chimera") };
  for (const name of [...TEXTS, ...Object.keys(DEFAULTS)]) {
    const variable = `CHIMERA_${name.toUpperCase()}`, file = environ[`${variable}_FILE`];
    const said = environ[variable] ?? (file && fs.readFileSync(file, "utf8").trim());
    if (said !== undefined) found[name] = name in DEFAULTS ? Number(said) : said;
  }
  if (environ.PORT !== undefined) found.port = Number(environ.PORT);
  for (const secret of ["CHIMERA_PLATFORM_TOKEN", "CHIMERA_HOST_KEY"]) delete environ[secret];
  return found;
}

function check(config) {
  const numbers = Object.keys(DEFAULTS).filter((name) => !Number.isFinite(config[name]));
  const needed = config.identity_file ? ["platform_url"] : ["platform_url", "platform_token", "host_key"];
  const missing = needed.filter((name) => !config[name]);
  if (!numbers.length && !missing.length) return config;
  const what = numbers.length ? `${numbers.join(", ")} must be a number` : `the host has no ${missing.join(" and no ")}`;
  process.stderr.write(`chimera_host: ${what} (set CHIMERA_ and the field's name in capitals; in a pod CHIMERA_IDENTITY_FILE)\n`);
  return process.exit(EXIT_USAGE);
}

async function main() {
  const { values: options } = parseArgs({
    options: { "config-fd": { type: "string" }, "listen-fd": { type: "string" }, "lifeline-fd": { type: "string" } },
  });
  const given = options["config-fd"] ? JSON.parse(fs.readFileSync(Number(options["config-fd"]), "utf8")) : environment(process.env);
  let config = check({ ...DEFAULTS, ...given });
  configure({ host: config.host, cell: config.cell });
  if (options["lifeline-fd"]) {
    const lifeline = new net.Socket({ fd: Number(options["lifeline-fd"]), readable: true, writable: false });
    lifeline.on("close", () => process.exit(EXIT_LIFELINE)).on("error", () => process.exit(EXIT_LIFELINE)).resume();
  }
  let stop = () => process.exit(EXIT_DRAINED);
  process.on("SIGTERM", () => stop()).on("SIGINT", () => stop());
  process.on("unhandledRejection", (error) => write("error", error?.stack ?? String(error)));
  // State is unknown after an error that nobody caught, so the host ends; the black box says which agents ran.
  process.on("uncaughtException", (error) => {
    write("error", error?.stack ?? String(error));
    process.exit(EXIT_CRASHED);
  });
  const platform = new Platform(config.platform_url, config.platform_token, config.identity_file);
  if (config.identity_file) {
    const { host, cell, host_key } = await platform.introduce();
    config = { ...config, host: host ?? config.host, cell: cell ?? config.cell, host_key };
    configure({ host: config.host, cell: config.cell });
  }
  const host = new Host(config, platform);
  const server = http.createServer({ requestTimeout: 60_000, headersTimeout: 20_000, keepAliveTimeout: 75_000 },
    (request, response) => host.handle(request, response));
  stop = () => host.drain(server);
  server.listen(options["listen-fd"] ? { fd: Number(options["listen-fd"]) } : { port: config.port, host: "0.0.0.0" },
    () => write("info", "host ready", { framework: config.framework, pid: process.pid }));
}

await main();
