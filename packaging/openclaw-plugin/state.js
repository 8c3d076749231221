// The plugin's only state, one for the whole process.
//
// The gateway calls register() two or more times: at the start, again on the first turn
// (2026.5.5), in "discovery" mode (2026.9.6), and after an in-process restart. Each call may even
// evaluate this module anew, so the state hangs on globalThis and not on the module.

import { randomUUID } from "node:crypto";
import { Link } from "./socket.js";
import { readQueue } from "./native-queue.js";
import { QueueWatch } from "./queue-watch.js";
import { BoundedMap, Runs, Sessions, jobOf, text } from "./sessions.js";
import { People } from "./people.js";

const SLOT = Symbol.for("tideover.plugin");
const VERSION = "0.1.0";
const RUNS_MAX = 512;
const CALLS_MAX = 1024;

/** The state of this process; null when no supervisor started it. */
export function stateOf(env = process.env) {
  if (globalThis[SLOT] === undefined) {
    const path = env.TIDEOVER_SOCKET;
    globalThis[SLOT] = path ? new State(path) : null;
    if (path) globalThis[SLOT].foundInterrupted = env.TIDEOVER_INTERRUPTED === "1";
  }
  // Commands which the agent runs inherit the environment; the socket is not theirs.
  delete env.TIDEOVER_SOCKET;
  delete env.TIDEOVER_INTERRUPTED;
  return globalThis[SLOT];
}

/** For tests: forgets the state of this process. */
export function forgetState() {
  delete globalThis[SLOT];
}

class State {
  sessions = new Sessions();
  runs = new Runs();
  people = new People();
  policy = { ack: "prefer", native: "ask", release: "any-message" };
  foundInterrupted = false; // this start found sessions that the one before left interrupted
  welcomed = false; // until then the policy above is a guess, and nothing native is touched
  held = []; // sessions whose effects are held, as last told
  interrupted = [];
  heard = new Set(); // keys of sessions whose person has spoken since `held` was told
  turns = new BoundedMap(RUNS_MAX); // runId → Promise of the text to prepend, or null
  told = new BoundedMap(RUNS_MAX); // runId → true, once such a text was handed to the gateway
  claims = new BoundedMap(RUNS_MAX); // runId → Promise of the before_agent_reply result
  calls = new BoundedMap(CALLS_MAX); // call key → { session, run_id, tool_call_id, name }
  unnamed = new BoundedMap(CALLS_MAX); // tool_call_id of our own making → call key, while open
  backgrounds = new BoundedMap(CALLS_MAX); // background id → session key, while it runs
  seen = new WeakSet(); // events acted upon
  stateDir = null; // the gateway's, as the supervisor names it
  claimedAt = 0; // when a recovery turn was last claimed
  stopping = false;
  #gatewayVersion = null;
  #incarnation = null;
  #started = false;
  #ended = null; // of the gateway that stopped here: { at, entries: [[map, keys]] }

  constructor(path) {
    this.link = new Link({
      path,
      hello: () => ({
        v: 1,
        role: "plugin",
        pid: process.pid,
        plugin_version: VERSION,
        gateway: { version: this.#gatewayVersion, incarnation: this.incarnation },
        signals: signals(),
      }),
      onHello: (result) => this.#welcome(result),
      onRequest: ({ type }) => this.#asked(type),
      onEvent: (frame) => frame.type === "holds" && this.remember(frame),
    });
    this.queue = new QueueWatch({
      read: () => (this.stateDir === null ? null : readQueue(this.stateDir)),
      tell: (found) => this.link.tell("native_queue", found),
    });
  }

  get incarnation() {
    this.#incarnation ??= randomUUID();
    return this.#incarnation;
  }

  set gatewayVersion(version) {
    if (typeof version === "string" && version.length > 0) this.#gatewayVersion = version;
  }

  get gatewayVersion() {
    return this.#gatewayVersion;
  }

  /** A gateway has started in this process; the second one gets an identity of its own. */
  gatewayStarted() {
    if (this.#started) {
      this.#incarnation = randomUUID();
      this.#forgetEnded(this.#ended ?? this.#soFar(Infinity));
    }
    this.#started = true;
    this.#ended = null;
    this.stopping = false;
  }

  /** The gateway stops; the calls it leaves open stay listed, since a flush may still ask. */
  gatewayStopped() {
    this.stopping = true;
    this.#ended = this.#soFar(Date.now());
  }

  // Not all that is known when the next gateway reports its start: a channel may be faster than
  // that report, and its message is one for the new gateway.
  #soFar(at) {
    const maps = [this.turns, this.claims, this.calls];
    return { at, entries: maps.map((map) => [map, [...map.keys()]]) };
  }

  // A message steered into a turn that died would pass for the word behind some later turn.
  #forgetEnded({ at, entries }) {
    for (const [map, keys] of entries) for (const key of keys) map.delete(key);
    this.people.forget(at);
    this.heard.clear();
    this.claimedAt = 0;
  }

  /** Whether this event is handled now for the first time (two registries may both hold us). */
  first(event) {
    if (event === null || typeof event !== "object") return true;
    if (this.seen.has(event)) return false;
    this.seen.add(event);
    return true;
  }

  /** The id we gave to the oldest open call like this one, whose result has none; or null. */
  takeUnnamed({ run_id: run, name }) {
    for (const [id, key] of [...this.unnamed]) {
      const call = this.calls.get(key);
      const isIt = call?.run_id === run && call.name === name;
      if (isIt || call === undefined) this.unnamed.delete(id); // closed otherwise: blocked
      if (isIt) return id;
    }
    return null;
  }

  /** Replaces the cached sets by what the supervisor says. */
  remember({ held, interrupted }) {
    if (Array.isArray(held)) {
      this.held = held;
      this.heard.clear();
    }
    if (Array.isArray(interrupted)) this.interrupted = interrupted;
  }

  /** Fail safe, for a supervisor that does not answer: is this session held, as far as known? */
  isHeld(session) {
    return lists(this.held, session) && !this.heard.has(session.key);
  }

  isInterrupted(session) {
    return lists(this.interrupted, session);
  }

  #asked(type) {
    // Reports are written as they are made, so all that a flush asks for is what is still open.
    if (type === "flush") return { open: [...this.calls.values()] };
    return type === "queue" ? this.queue.answer() : undefined;
  }

  #welcome(result) {
    const { ack, native, release } = result.policy ?? {};
    if (ack === "prefer" || ack === "require") this.policy.ack = ack;
    if (native === "ask" || native === "ride" || native === "native") this.policy.native = native;
    this.policy.release = release === "explicit" ? release : "any-message";
    this.welcomed = true;
    this.stateDir = text(result.state_dir);
    this.queue.forget();
    this.remember(result);
  }
}

/** What the restart signals mean here: without a listener USR1 opens Node's inspector. */
export function signals() {
  return {
    usr1: process.listenerCount("SIGUSR1") > 0,
    usr2: process.listenerCount("SIGUSR2") > 0,
  };
}

function lists(sessions, { key, id }) {
  const job = jobOf(key);
  return sessions.some((s) => s?.key === key || s?.key === job || (id !== null && s?.id === id));
}
