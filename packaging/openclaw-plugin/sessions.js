// Which session a hook speaks of.
//
// The supervisor knows sessions by their key in the session STORE. Agent and message hooks carry
// that key; tool hooks carry the session id and the run id, but on 2026.5.5 their `sessionKey` is
// the tool-policy key ("agent:main:telegram:default:direct:4242" while the session is
// "agent:main:main"). So a tool call is joined by run id, then by session id, and only a session
// nobody has told us of keeps the key of its tool hook.

import { randomUUID } from "node:crypto";

const SESSIONS_MAX = 2048;
const RUNS_MAX = 2048;

/** A Map that forgets its oldest entries. */
export class BoundedMap extends Map {
  #max;

  constructor(max) {
    super();
    this.#max = max;
  }

  set(key, value) {
    this.delete(key);
    super.set(key, value);
    if (this.size > this.#max) this.delete(this.keys().next().value);
    return this;
  }
}

export class Sessions {
  #keyById = new BoundedMap(SESSIONS_MAX);
  #idByKey = new BoundedMap(SESSIONS_MAX);
  #runs = new BoundedMap(RUNS_MAX); // runId → session

  /** Learns from a hook whose sessionKey is the store key; returns the session, or null. */
  learn({ sessionKey, sessionId, agentId, runId }) {
    const key = text(sessionKey);
    if (key === null) return null;
    const id = text(sessionId) ?? this.#idByKey.get(key) ?? null;
    if (id !== null) {
      this.#keyById.set(id, key);
      this.#idByKey.set(key, id);
    }
    const session = { key, id, agent_id: text(agentId) ?? agentOf(key) };
    if (text(runId) !== null) this.#runs.set(runId, session);
    return session;
  }

  /** The session of a tool hook, joined by run id, then session id; null when it names none. */
  ofTool({ sessionKey, sessionId, agentId, runId }) {
    const run = this.#runs.get(runId);
    if (run) return run;
    const id = text(sessionId);
    const key = (id === null ? undefined : this.#keyById.get(id)) ?? text(sessionKey);
    if (key === null) return null;
    return { key, id, agent_id: text(agentId) ?? agentOf(key) };
  }
}

/**
 * The run which each session is in. A gateway may name none; the journal needs a name for it, one
 * that no run of another process has.
 */
export class Runs {
  #current = new BoundedMap(SESSIONS_MAX); // session key → { id, prompt }, prompt for our own names
  #named = 0;

  /** A turn starts; the retry of an unnamed one has its prompt, and keeps its name. */
  start({ key }, id, prompt) {
    const current = this.#current.get(key);
    if (id === null && current !== undefined && current.prompt === prompt) return current.id;
    const run = id === null ? { id: this.#name(), prompt } : { id };
    this.#current.set(key, run);
    return run.id;
  }

  /** The run a tool call belongs to. */
  of({ key }, id) {
    if (id !== null) return id;
    if (!this.#current.has(key)) this.#current.set(key, { id: this.#name() });
    return this.#current.get(key).id;
  }

  /** A turn ends; returns its run, or null when none is known. */
  end({ key }, id) {
    const current = this.#current.get(key)?.id ?? null;
    if (id === null || id === current) this.#current.delete(key);
    return id ?? current;
  }

  #name() {
    this.#named += 1;
    return `run-${this.#named}-${randomUUID().slice(0, 8)}`;
  }
}

/** "main" of "agent:main:telegram:…"; null for a key of another form. */
function agentOf(key) {
  const parts = key.split(":");
  return parts[0] === "agent" && parts[1] ? parts[1] : null;
}

/** The supervisor keeps one record for all runs of a scheduled job, whose keys differ in the run. */
export const jobOf = (key) => key.replace(/^((?:agent:[^:]+:)?cron:.+):run:[^:]*$/, "$1");

/** A non-empty string, or null. */
export function text(value) {
  return typeof value === "string" && value.length > 0 ? value : null;
}
