// Loaded agents: an entry point's own function, or a declared behaviour of the `function` kind; least recently used go first.
//
// TypeScript is run as it is where Node strips its types by itself (22.18, 23.6 and later); an older one says so.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { unpack } from "./bundles.mjs";
import { agentBusy, agentFailed, agentLoadFailed } from "./problem.mjs";

const SCRIPTS = [".mjs", ".js", ".cjs", "/index.mjs", "/index.js"], TYPED = [".ts", ".mts", "/index.ts"];
const SUFFIXES = [...SCRIPTS, ...TYPED];
const MOST = 2000;

export class Agents {
  constructor(config, platform) {
    Object.assign(this, { config, platform, loaded: new Map(), loading: new Map(), loads: 0, evictions: 0 });
  }

  async take(call) {
    const { revision, agent } = call.request;
    let entry = this.loaded.get(revision);
    if (entry === undefined) {
      call.loaded = true;
      entry = await this.once(call.request);
    }
    this.loaded.delete(revision); // put again at the end: a Map keeps the order of insertion
    this.loaded.set(revision, entry);
    if (entry.calls >= (entry.document.concurrency ?? 10))
      throw agentBusy(`agent ${agent} has ${entry.calls} calls, as many as it takes`, { retryAfter: 1, agent });
    entry.calls += 1;
    entry.used = Date.now();
    return entry;
  }

  // An agent is loaded before its first call, where there is room, or it may take another's. One that is there is used.
  async warm(request) {
    const entry = this.loaded.get(request.revision);
    if (entry !== undefined) {
      entry.used = Date.now();
      this.loaded.delete(request.revision);
      this.loaded.set(request.revision, entry);
      return;
    }
    const room = this.loaded.size < MOST && process.memoryUsage.rss() < 0.9 * this.config.memory_bytes;
    if (room || request.make_room) await this.once(request);
  }

  once(request) {
    const { revision } = request;
    let loading = this.loading.get(revision);
    if (loading === undefined) {
      loading = this.load(request).finally(() => this.loading.delete(revision));
      this.loading.set(revision, loading);
    }
    return loading;
  }

  release(entry) {
    entry.calls -= 1;
    entry.used = Date.now();
  }

  async load(request) {
    const document = await this.platform.revision(request.revision, request.platform_url);
    if (document.tenant !== request.tenant || document.name !== request.agent)
      throw agentLoadFailed(`revision ${request.revision} is not one of agent ${request.agent}`, { agent: request.agent });
    const run = document.source?.entrypoint ? await this.code(document, request.platform_url) : declared(document);
    this.loads += 1;
    this.relieve();
    const entry = { document, run, calls: 0, used: Date.now() };
    this.loaded.set(request.revision, entry);
    return entry;
  }

  async code(document, at) {
    const agent = document.name, [module, factory] = document.source.entrypoint.split(":");
    const folder = unpack(await this.platform.bundle(document.source.bundle, at), document.source.bundle,
      path.join(this.config.work_dir, "bundles"));
    const file = ["", ...SUFFIXES].flatMap((suffix) => [module, module.replaceAll(".", "/")].map((name) => name + suffix))
      .map((name) => path.join(folder, name)).find((place) => fs.statSync(place, { throwIfNoEntry: false })?.isFile());
    if (file === undefined) throw agentLoadFailed(`the source folder of agent ${agent} holds no module ${module}`, { agent });
    if (/\.m?ts$/.test(file) && !process.features.typescript)
      throw agentLoadFailed(`agent ${agent} is written in TypeScript, which Node.js ${process.versions.node} doesn't run`,
        { agent, nextStep: "compile it to JavaScript, or run hosts on Node.js 22.18 or newer (`chimera runtime install node`)" });
    const workDir = path.join(this.config.work_dir, "agents", document.tenant, agent);
    fs.mkdirSync(workDir, { recursive: true });
    let made;
    try {
      const imported = await import(pathToFileURL(file).href);
      const found = imported[factory] ?? imported.default?.[factory];
      if (typeof found !== "function") throw new Error(`${module} has no function ${factory}`);
      made = await found({ document, workDir });
    } catch (error) {
      throw agentLoadFailed(`the entry point of agent ${agent} failed: ${error.message}`,
        { agent, nextStep: "see `chimera logs` for what it printed" });
    }
    if (typeof made === "function") return made;
    // A compiled graph of LangGraph.js, or anything else with its `invoke`.
    if (typeof made?.invoke === "function") return (prompt, call) => graph(made, prompt, call);
    throw agentLoadFailed(`the entry point of agent ${agent} returned no function and nothing with \`invoke\``, { agent });
  }

  relieve() {
    const memory = process.memoryUsage.rss();
    for (const [revision, entry] of this.loaded) {
      if (this.loaded.size < MOST && memory < 0.9 * this.config.memory_bytes) return;
      if (entry.calls === 0) {
        this.loaded.delete(revision);
        this.evictions += 1;
        if (memory >= 0.9 * this.config.memory_bytes) return;
      }
    }
  }

  unloadIdle() {
    for (const [revision, entry] of this.loaded)
      if (entry.calls === 0 && Date.now() - entry.used > this.config.idle_unload * 1000) this.loaded.delete(revision);
  }
}

async function graph(made, prompt, call) {
  const messages = [...call.session.messages, ...call.request.messages];
  const state = await made.invoke({ messages, input: prompt }, { signal: call.signal });
  const last = state?.messages?.at(-1);
  return state?.output ?? last?.content ?? JSON.stringify(state);
}

function declared(document) {
  const behaviour = document.behaviour?.function;
  if (!behaviour)
    throw agentLoadFailed(`agent ${document.name} has neither an entry point nor a \`function\` behaviour`, {
      agent: document.name, nextStep: "on Node, LangGraph agents bring their own graph: specification.entrypoint",
    });
  if (behaviour.endpoint)
    throw agentLoadFailed(`agent ${document.name} stands for a function, which hosts in Python ask for`, {
      agent: document.name, nextStep: "use python:3.11-slim",
    });
  if (behaviour.tools?.length)
    throw agentLoadFailed(`agent ${document.name} declares tools, which the Node host doesn't run`, {
      agent: document.name, nextStep: "use python:3.11-slim, or call what you need in an entry point",
    });
  const system = (prompt) => behaviour.system_message.replaceAll("{input}", () => prompt);
  return async (prompt, call) => {
    const said = [...call.session.messages, ...call.request.messages].map(({ role, content }) => ({ role, content }));
    const answer = await call.chat({ messages: [{ role: "system", content: system(prompt) }, ...said] });
    const text = answer.choices[0].message.content ?? "";
    call.emit(text);
    return text;
  };
}

export function result(given, agent) {
  if (typeof given === "string") return { output: given };
  if (given && typeof given.output === "string") return given;
  throw agentFailed(`the agent's function returned ${given === null ? "null" : typeof given}, not a text`,
    { agent, nextStep: "return a string or {output, values}" });
}
