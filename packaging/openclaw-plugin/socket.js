// The connection to the supervisor: newline-delimited JSON over a Unix socket.
//
// Three promises to the gateway, in this order: it is never kept alive by us (socket and timers
// are unref'ed), it never waits longer than the timeout of one request, and it never sees an
// exception. What cannot be delivered is dropped, never retried into a growing pile.

import net from "node:net";

export const FRAME_BYTES_MAX = 1_048_576; // including the newline; of what we send
export const INBOUND_BYTES_MAX = 16_777_216; // a welcome lists every session that is held
const QUEUE_BYTES_MAX = 2_097_152; // reports kept while the supervisor is away
const QUEUE_FRAMES_MAX = 512;
const TIMEOUTS_IN_A_ROW_MAX = 3; // after this many the peer counts as hung
const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 30_000;
const REFUSED_MS = 60_000; // between hellos to a supervisor that knew us once and does not now
const ASK_OPEN_MS = 2000; // how long a connection that is being made is waited for
export const TIMEOUT_MS_DEFAULT = 1000; // until the supervisor has told its own

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Why a request has no answer: "timeout", "down" (no connection) or the supervisor's own code. */
export class LinkError extends Error {
  constructor(code, message) {
    super(message ?? code);
    this.code = code;
  }
}

export class Link {
  #path;
  #hello; // () => object: the fields of the hello frame, made anew for each connection
  #onHello; // (result) => void
  #onRequest; // (frame) => object | undefined: the result of a request from the supervisor
  #onEvent; // (frame) => void
  #socket = null;
  #state = "idle"; // idle · connecting · open · waiting (a pause) · refused (for good)
  #pending = new Map(); // id → { resolve, reject, timer }
  #queue = []; // { line, bytes }: made while not open, in order
  #queuedBytes = 0;
  #nextId = 1;
  #known = false; // whether a supervisor has ever welcomed us
  #timeouts = 0;
  #lastTimeoutMs = 0;
  #backoffMs = BACKOFF_MS_MIN;
  timeoutMs = TIMEOUT_MS_DEFAULT;

  constructor({ path, hello, onHello, onRequest, onEvent }) {
    this.#path = path;
    this.#hello = hello;
    this.#onHello = onHello;
    this.#onRequest = onRequest;
    this.#onEvent = onEvent;
  }

  get state() {
    return this.#state;
  }

  /** Connects if that has not been done yet; called from hooks, never from register(). */
  open() {
    if (this.#state === "idle") this.#connect();
  }

  /** Sends a request; resolves with its result, rejects with LinkError within `timeoutMs`. */
  request(type, fields, timeoutMs = this.timeoutMs) {
    this.open();
    if (this.#state === "refused") return Promise.reject(new LinkError("refused"));
    const id = String(this.#nextId++);
    const line = encode({ id, type, ...fields });
    if (line === null) return Promise.reject(new LinkError("too_large"));
    const away = this.#state === "waiting";
    this.#send(line);
    // The report itself waits for the reconnect; whoever asked does not.
    if (away) return Promise.reject(new LinkError("down"));
    return new Promise((resolve, reject) => this.#await(id, resolve, reject, timeoutMs));
  }

  /**
   * Sends a request now or not at all: one that waited for a reconnect would be acted upon after whoever asked has
   * been told that it was not. "down" and "refused": it was not sent. "cut": it was, and no answer will come.
   */
  async ask(type, fields, timeoutMs) {
    this.open();
    const deadline = performance.now() + ASK_OPEN_MS;
    while (this.#state === "connecting" && performance.now() < deadline) await pause(20);
    if (this.#state !== "open") throw new LinkError(this.#state === "refused" ? "refused" : "down");
    try {
      return await this.request(type, fields, timeoutMs);
    } catch (error) {
      throw error.code === "down" ? new LinkError("cut") : error;
    }
  }

  /** Sends a request whose answer does not matter. */
  report(type, fields) {
    this.request(type, fields).catch(() => {});
  }

  /** Sends what gets no answer at all. */
  tell(type, fields) {
    this.open();
    const line = this.#state === "refused" ? null : encode({ type, ...fields });
    if (line !== null) this.#send(line);
  }

  #await(id, resolve, reject, timeoutMs) {
    const sentMs = performance.now();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(new LinkError("timeout"));
      // A burst that waits out one slow moment of the supervisor counts once.
      if (sentMs >= this.#lastTimeoutMs) this.#timeouts += 1;
      this.#lastTimeoutMs = performance.now();
      if (this.#timeouts >= TIMEOUTS_IN_A_ROW_MAX) this.#drop();
    }, timeoutMs);
    timer.unref?.();
    this.#pending.set(id, { resolve, reject, timer });
  }

  #connect() {
    this.#state = "connecting";
    this.#timeouts = 0;
    this.#lastTimeoutMs = 0;
    let socket;
    try {
      socket = net.createConnection({ path: this.#path });
    } catch {
      this.#drop();
      return;
    }
    this.#socket = socket;
    socket.unref();
    socket.on("error", () => {}); // "close" follows and does the work
    socket.on("close", () => this.#closed(socket));
    socket.on("connect", () => this.#greet(socket));
    readLines(socket, (line) => this.#receive(socket, line));
  }

  #greet(socket) {
    const id = String(this.#nextId++);
    const line = encode({ id, type: "hello", ...this.#hello() });
    socket.write(line);
    this.#await(
      id,
      (result) => this.#welcomed(socket, result ?? {}),
      (error) => (error.code === "refused" ? this.#refuse() : this.#drop()),
      this.timeoutMs,
    );
  }

  #welcomed(socket, result) {
    if (socket !== this.#socket) return;
    this.#state = "open";
    this.#known = true;
    this.#backoffMs = BACKOFF_MS_MIN;
    const ms = result.policy?.timeout_ms;
    if (Number.isFinite(ms) && ms > 0) this.timeoutMs = Math.min(ms, 10_000);
    this.#onHello(result);
    const queued = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { line } of queued) socket.write(line);
  }

  #send(line) {
    if (this.#state === "open") {
      this.#socket.write(line);
      return;
    }
    const bytes = Buffer.byteLength(line);
    this.#queue.push({ line, bytes });
    this.#queuedBytes += bytes;
    while (this.#queuedBytes > QUEUE_BYTES_MAX || this.#queue.length > QUEUE_FRAMES_MAX) {
      this.#queuedBytes -= this.#queue.shift().bytes;
    }
  }

  #receive(socket, line) {
    if (socket !== this.#socket || line.length === 0) return;
    let frame;
    try {
      frame = JSON.parse(line);
    } catch {
      this.#drop();
      return;
    }
    if (frame === null || typeof frame !== "object") return;
    if ("ok" in frame) this.#answered(frame);
    else if (frame.id !== undefined) this.#asked(socket, frame);
    else this.#onEvent(frame);
  }

  #answered(frame) {
    const waiter = this.#pending.get(String(frame.id));
    this.#timeouts = 0; // a late answer is a sign of life, too
    // Before the welcome it is we who are refused, whatever id that bears; after it, one request.
    if (this.#state === "connecting" && frame.ok !== true && frame.error?.code === "refused") {
      this.#refuse();
      return;
    }
    if (!waiter) return;
    this.#pending.delete(String(frame.id));
    clearTimeout(waiter.timer);
    if (frame.ok === true) waiter.resolve(frame.result);
    else waiter.reject(new LinkError(frame.error?.code ?? "error", frame.error?.message));
  }

  // Everything reported before this frame came was handed to socket.write() before the answer, and
  // a stream keeps its order: the answer to `flush` cannot overtake a report.
  #asked(socket, frame) {
    let reply;
    try {
      const result = this.#onRequest(frame);
      reply = result === undefined
        ? { ok: false, error: { code: "unknown_type", message: "unknown request type" } }
        : { ok: true, result };
    } catch {
      reply = { ok: false, error: { code: "internal", message: "the plugin failed" } };
    }
    const line = encode({ id: frame.id, ...reply });
    if (line !== null) socket.write(line);
  }

  /** The supervisor does not want us: for good if we never were its child, else for a while. */
  #refuse() {
    this.#queue = [];
    this.#queuedBytes = 0;
    if (this.#known) this.#pause("refused", REFUSED_MS);
    else {
      this.#state = "refused";
      this.#abandon("refused");
    }
  }

  /** The peer is gone or hung: away, and back after a pause. */
  #drop() {
    if (this.#state === "refused" || this.#state === "waiting") return;
    this.#pause("down", this.#backoffMs);
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MS_MAX);
  }

  #pause(code, ms) {
    this.#state = "waiting";
    this.#abandon(code);
    const timer = setTimeout(() => {
      if (this.#state === "waiting") this.#connect();
    }, ms);
    timer.unref?.();
  }

  #closed(socket) {
    if (socket === this.#socket) this.#drop();
  }

  #abandon(code) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.destroy();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(new LinkError(code));
    }
  }
}

// Half a surrogate pair, which JSON.stringify leaves as an escape and strict readers refuse. A text
// cut at a length may end in one.
const LONE_SURROGATE = /(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/gi;

/** One frame as a line, or null when it is over the limit or no JSON. */
export function encode(frame) {
  let line;
  try {
    line = `${JSON.stringify(frame).replace(LONE_SURROGATE, "$1\ufffd")}\n`;
  } catch {
    return null;
  }
  return Buffer.byteLength(line) > FRAME_BYTES_MAX ? null : line;
}

/** Splits a stream into lines by bytes, so that a character cut between two chunks survives. */
function readLines(socket, onLine) {
  let parts = [];
  let bytes = 0;
  socket.on("data", (chunk) => {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(10, start);
      if (end < 0) break;
      parts.push(chunk.subarray(start, end));
      const line = Buffer.concat(parts).toString("utf8");
      parts = [];
      bytes = 0;
      start = end + 1;
      onLine(line);
    }
    if (start < chunk.length) {
      parts.push(chunk.subarray(start));
      bytes += chunk.length - start;
    }
    if (bytes > INBOUND_BYTES_MAX) socket.destroy(); // a line without an end: not our protocol
  });
}
