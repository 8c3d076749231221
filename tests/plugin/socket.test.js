import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, mock, test } from "node:test";

import {
  FRAME_BYTES_MAX, INBOUND_BYTES_MAX, encode,
} from "../../packaging/openclaw-plugin/socket.js";
import { MAIN, SESSION, gateway, message, sleep, supervisor, toolCall, until } from "./support.js";

let peer;
afterEach(() => peer?.close());

test("hello comes first, whatever was asked first", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("message_received", ...message());
  await until(() => peer.of("user_message").length === 1);
  assert.equal(peer.frames[0].type, "hello");
  assert.equal(peer.frames[0].pid, process.pid);
  assert.equal(peer.frames[0].gateway.version, "2026.0.0");
});

test("arguments over the limit are replaced by their size and hash", async () => {
  peer = await supervisor(() => ({ durable: true, allow: true, reason: null, end_turn: false }));
  const gw = gateway(peer.path);
  const params = { text: "é".repeat(300_000) };
  assert.equal(await gw.fire("before_tool_call", ...toolCall({ params })), undefined);
  const json = JSON.stringify(params);
  const [intent] = peer.of("tool_intent");
  assert.equal(intent.arguments, null);
  assert.deepEqual(intent.arguments_omitted, {
    bytes: Buffer.byteLength(json),
    sha256: createHash("sha256").update(json).digest("hex"),
  });
});

test("arguments nested deeper than 64 levels are replaced, too", async () => {
  peer = await supervisor(() => ({ durable: true, allow: true, reason: null, end_turn: false }));
  const gw = gateway(peer.path);
  const nested = (levels) => JSON.parse(`${'{"a":'.repeat(levels)}"[{ \\" [{"${"}".repeat(levels)}`);
  for (const levels of [64, 65, 3000]) {
    const params = nested(levels);
    await gw.fire("before_tool_call", ...toolCall({ params, toolCallId: `c-${levels}` }));
  }
  const [kept, ...omitted] = peer.of("tool_intent");
  assert.deepEqual(kept.arguments, nested(64));
  const json = JSON.stringify(nested(65));
  assert.deepEqual(omitted.map((intent) => intent.arguments === null), [true, true]);
  assert.deepEqual(omitted[0].arguments_omitted, {
    bytes: json.length,
    sha256: createHash("sha256").update(json).digest("hex"),
  });
});

test("a character cut between two chunks survives", async () => {
  peer = await supervisor(({ type }) => (type === "turn_start" ? undefined : {}));
  const gw = gateway(peer.path);
  const turn = gw.fire("agent_turn_prepare", { prompt: "go" }, { ...SESSION, runId: "r-1" });
  await until(() => peer.of("turn_start").length === 1);
  const { id } = peer.of("turn_start")[0];
  const bytes = Buffer.from(`${JSON.stringify({ id, ok: true, result: { prepend: "früh" } })}\n`);
  const cut = bytes.indexOf(0xc3) + 1;
  peer.connections[0].write(bytes.subarray(0, cut));
  await sleep(20);
  peer.connections[0].write(bytes.subarray(cut));
  assert.deepEqual(await turn, { prependContext: "früh" });
});

test("half a surrogate pair never reaches the socket", () => {
  const text = ["a\ud83d", "\\ud83d is written so", "\\\ud83d", "\u{1f600}"];
  assert.deepEqual(JSON.parse(encode({ text })).text, ["a\ufffd", text[1], "\\\ufffd", text[3]]);
  assert.equal(encode({ text: "x".repeat(FRAME_BYTES_MAX) }), null);
});

test("a line without an end drops the connection", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  peer.connections[0].write("x".repeat(INBOUND_BYTES_MAX + 2));
  await until(() => peer.connections.length === 2); // and it comes back
});

test("a frame of the supervisor may be larger than ours", async () => {
  peer = await supervisor(({ type }) => (type === "tool_intent" ? undefined : {}), {
    policy: { timeout_ms: 100 },
  });
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  const held = Array.from({ length: 60_000 }, (_, n) => ({ key: `agent:main:x:${n}`, id: null }));
  peer.send({ type: "holds", held: [...held, { key: MAIN, id: null }], interrupted: [] });
  peer.send({ id: "seen", type: "flush", deadline_ms: 400 });
  await until(() => peer.frames.some(({ id }) => id === "seen"));
  assert.equal(peer.connections.length, 1);
  await gw.fire("agent_turn_prepare", { prompt: "go" }, { ...SESSION, runId: "r-1" });
  assert.equal((await gw.fire("before_tool_call", ...toolCall())).block, true);
});

test("a hung socket delays a tool by the timeout, and only three times", async () => {
  const hung = ({ type }) => (type === "tool_intent" ? undefined : {});
  peer = await supervisor(hung, { policy: { timeout_ms: 80 } });
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 }); // from here on the supervisor's own timeout holds
  for (let n = 0; n < 3; n += 1) {
    const start = Date.now();
    assert.equal(await gw.fire("before_tool_call", ...toolCall({ toolCallId: `c-${n}` })), undefined);
    const ms = Date.now() - start;
    assert.ok(ms >= 60 && ms < 400, `${ms} ms`);
  }
  const start = Date.now();
  await gw.fire("before_tool_call", ...toolCall({ toolCallId: "c-4" }));
  assert.ok(Date.now() - start < 40, "a peer known to hang is not waited for");
});

test("ack=require blocks what the supervisor has not acknowledged", async () => {
  peer = await supervisor(() => undefined, { policy: { timeout_ms: 50, ack: "require" } });
  const gw = gateway(peer.path);
  const result = await gw.fire("before_tool_call", ...toolCall());
  assert.equal(result.block, true);
});

test("an absent socket costs nothing", async () => {
  peer = undefined;
  const gw = gateway("/nonexistent/control.sock");
  const start = Date.now();
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined);
  assert.ok(Date.now() - start < 200);
});

test("a refused request costs its answer and nothing more", async () => {
  const refused = { error: { code: "refused", message: "no" } };
  peer = await supervisor(({ type }) => (type === "gateway_start" ? refused : { allow: false }));
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  assert.equal((await gw.fire("before_tool_call", ...toolCall())).block, true);
  assert.equal(peer.connections.length, 1);
});

test("a plugin refused at its first hello stays inert for good", async (t) => {
  peer = await supervisor(() => ({}), { error: { code: "refused", message: "not the child" } });
  const gw = gateway(peer.path);
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  await gw.fire("gateway_start", { port: 1 });
  mock.timers.tick(3_600_000);
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined);
  assert.deepEqual(peer.frames.map(({ type }) => type), ["hello"]);
});

test("a plugin once welcomed asks a supervisor that refuses it again, slowly", async (t) => {
  peer = await supervisor(() => ({ allow: false }));
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  peer.welcome = { error: { code: "refused", message: "not the child" } };
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const turns = async (n) => { // of the event loop: the socket's events run, time does not
    for (let i = 0; i < n; i += 1) await new Promise((resolve) => setImmediate(resolve));
  };
  peer.connections[0].destroy();
  await turns(50);
  mock.timers.tick(250); // the first reconnect, which is refused
  await turns(50);
  assert.equal(peer.of("hello").length, 2);
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined); // waits for nobody
  mock.timers.tick(59_000);
  await turns(50);
  assert.equal(peer.of("hello").length, 2);
  peer.welcome = {};
  mock.timers.tick(1_000);
  await turns(50);
  assert.equal(peer.of("hello").length, 3);
  const again = await gw.fire("before_tool_call", ...toolCall({ toolCallId: "c-2" }));
  assert.equal(again.block, true); // answered
});

test("flush is answered after every report, with the calls still open", async () => {
  peer = await supervisor(({ type }) => (type === "tool_intent" ? { allow: true } : {}));
  const gw = gateway(peer.path);
  await gw.fire("agent_turn_prepare", { prompt: "go" }, { ...SESSION, runId: "r-1" });
  await gw.fire("before_tool_call", ...toolCall());
  for (let n = 0; n < 50; n += 1) gw.fire("message_received", ...message(`word ${n}`));
  peer.send({ id: "f1", type: "flush", deadline_ms: 400 });
  await until(() => peer.frames.some(({ id }) => id === "f1"));
  const at = peer.frames.findIndex(({ id }) => id === "f1");
  assert.equal(peer.frames.slice(0, at).filter(({ type }) => type === "user_message").length, 50);
  assert.deepEqual(peer.frames[at].result.open, [{
    session: { key: MAIN, id: "s-1", agent_id: "main" },
    run_id: "r-1", tool_call_id: "c-1", name: "exec",
  }]);
});

test("an unknown request gets its error", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  peer.send({ id: "q", type: "dance" });
  await until(() => peer.frames.some(({ id }) => id === "q"));
  assert.equal(peer.frames.find(({ id }) => id === "q").error.code, "unknown_type");
});

test("reports made while the supervisor is away arrive in order when it is back", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  peer.connections[0].destroy();
  await sleep(30);
  await gw.fire("message_received", ...message("one"));
  await gw.fire("message_received", ...message("two"));
  await until(() => peer.of("user_message").length === 2);
  assert.deepEqual(peer.of("user_message").map(({ text }) => text), ["one", "two"]);
  assert.equal(peer.of("hello").length, 2);
});
