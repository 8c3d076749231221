// A supervisor's end of the socket, and a gateway's end of the plugin, for the tests beside this.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";

import plugin from "../../packaging/openclaw-plugin/index.js";
import { forgetState } from "../../packaging/openclaw-plugin/state.js";

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` holds; fails after `ms`. */
export async function until(condition, ms = 3000) {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error("the condition did not come true");
    await sleep(5);
  }
}

/** A fake supervisor. `answer(frame)` gives the result of a request; undefined leaves it open. */
export async function supervisor(answer = () => ({}), welcome = {}) {
  const dir = mkdtempSync(path.join(tmpdir(), "tideover-plugin-"));
  const socketPath = path.join(dir, "control.sock");
  const frames = [];
  const connections = [];
  const self = { frames, connections, path: socketPath, answer, welcome };
  const server = net.createServer((socket) => {
    connections.push(socket);
    socket.on("error", () => {});
    let rest = "";
    socket.setEncoding("utf8").on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) receive(socket, JSON.parse(line));
    });
  });
  const receive = (socket, frame) => {
    frames.push(frame);
    if (frame.id === undefined || "ok" in frame) return;
    const result = frame.type === "hello"
      ? { v: 1, tideover: "0", policy: {}, held: [], interrupted: [], ...self.welcome }
      : self.answer(frame);
    if (result === undefined) return;
    const reply = result.error ? { ok: false, error: result.error } : { ok: true, result };
    socket.write(`${JSON.stringify({ id: frame.id, ...reply })}\n`);
  };
  self.of = (type) => frames.filter((frame) => frame.type === type);
  self.send = (frame) => connections.at(-1).write(`${JSON.stringify(frame)}\n`);
  self.close = () => {
    for (const socket of connections) socket.destroy();
    server.close();
    rmSync(dir, { recursive: true, force: true });
  };
  await new Promise((resolve) => server.listen(socketPath, resolve));
  return self;
}

/** Registers the plugin as a gateway would, and fires its hooks. */
export function gateway(socketPath, { interrupted = true } = {}) {
  forgetState();
  if (interrupted) process.env.TIDEOVER_INTERRUPTED = "1";
  else delete process.env.TIDEOVER_INTERRUPTED;
  if (socketPath) process.env.TIDEOVER_SOCKET = socketPath;
  else delete process.env.TIDEOVER_SOCKET;
  let hooks = [];
  let commands = [];
  const register = ({ keep = false } = {}) => {
    if (!keep) hooks = [];
    if (!keep) commands = [];
    plugin.register({
      registrationMode: "full",
      runtime: { version: "2026.0.0" },
      on: (name, handler, opts) => hooks.push({ name, handler, opts }),
      registerCommand: (command) => commands.push(command),
    });
  };
  register();
  return {
    register,
    hooks: () => hooks,
    commands: () => commands,
    /** Fires a hook; the result of the last handler that returned one. */
    async fire(name, event, ctx = {}) {
      let result;
      for (const hook of hooks.filter((h) => h.name === name)) {
        result = (await hook.handler(event, ctx)) ?? result;
      }
      return result;
    },
  };
}

export const MAIN = "agent:main:main";
export const SESSION = { sessionKey: MAIN, sessionId: "s-1", agentId: "main" };

/** A tool call as the hooks see it on 2026.5.5: under the policy key. */
export const toolCall = (over = {}) => [
  { toolName: "exec", params: { command: "true" }, runId: "r-1", toolCallId: "c-1", ...over },
  { sessionKey: "agent:main:telegram:default:direct:1", sessionId: "s-1", runId: "r-1" },
];

/** A message of a person, as the hooks see it. */
export const message = (content = "please deploy", over = {}) => [
  {
    from: "telegram:1", content, messageId: "11", senderId: "1", sessionKey: MAIN,
    metadata: { originatingChannel: "telegram", originatingTo: "telegram:1" }, ...over,
  },
  { channelId: "telegram", accountId: "default", sessionKey: MAIN },
];

// As 2026.9.6 makes it.
const QUEUE_TABLE = `CREATE TABLE delivery_queue_entries (
  queue_name TEXT NOT NULL, id TEXT NOT NULL, status TEXT NOT NULL, entry_kind TEXT,
  session_key TEXT, channel TEXT, target TEXT, account_id TEXT,
  retry_count INTEGER NOT NULL DEFAULT 0, last_attempt_at INTEGER, last_error TEXT,
  recovery_state TEXT, platform_send_started_at INTEGER, entry_json TEXT NOT NULL,
  enqueued_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, failed_at INTEGER,
  PRIMARY KEY (queue_name, id)) STRICT`;

/** A state directory with the gateway's queue in it, and the gateway's connection to that. */
export function stateDirectory({ database = true, journal = "wal" } = {}) {
  const dir = mkdtempSync(path.join(tmpdir(), "tideover-state-"));
  let db = null;
  if (database) {
    mkdirSync(path.join(dir, "state"));
    db = new DatabaseSync(path.join(dir, "state", "openclaw.sqlite"));
    db.exec(`PRAGMA journal_mode = ${journal}; ${QUEUE_TABLE}`);
  }
  return {
    dir,
    db,
    insert(over) {
      const row = {
        queue_name: "outbound-prepared-v1", status: "pending", entry_json: "{}",
        enqueued_at: 1, updated_at: 1, ...over,
      };
      const names = Object.keys(row);
      const values = names.map((name) => `@${name}`);
      db.prepare(`INSERT INTO delivery_queue_entries (${names}) VALUES (${values})`).run(row);
    },
    remove() {
      if (db?.isOpen) db.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
