import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { MAIN, SESSION, gateway, message, sleep, supervisor, toolCall, until } from "./support.js";

const RECOVERY = "[System] Your previous turn was interrupted by a gateway restart.";
const NOTICE = "I'm continuing your interrupted request now (the gateway has just restarted).";
const HELD = [{ key: MAIN, id: null }];
const ALLOW = { durable: true, allow: true, reason: null, end_turn: false };

let peer;
afterEach(() => peer?.close());

const prepare = (gw, prompt, ctx = {}) =>
  gw.fire("agent_turn_prepare", { prompt, messages: [] }, { ...SESSION, runId: "r-1", ...ctx });

test("without TIDEOVER_SOCKET no hook is registered", () => {
  assert.equal(gateway(null).hooks().length, 0);
});

test("the socket is read once and hidden from the agent's tools", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  assert.equal(process.env.TIDEOVER_SOCKET, undefined);
  gw.register();
  assert.ok(gw.hooks().length > 0);
});

test("registering connects to nobody", async () => {
  peer = await supervisor();
  gateway(peer.path).register();
  await sleep(50);
  assert.equal(peer.connections.length, 0);
});

test("a second registration shares the connection and acts once for an event", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  gw.register({ keep: true }); // both registries alive
  await gw.fire("message_received", ...message());
  await gw.fire("before_tool_call", ...toolCall());
  await until(() => peer.of("tool_intent").length === 1);
  assert.equal(peer.connections.length, 1);
  assert.equal(peer.of("user_message").length, 1);
});

test("a tool call is joined to the session's store key", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  await gw.fire("before_tool_call", ...toolCall());
  await gw.fire("before_tool_call", ...toolCall({ runId: "r-unknown", toolCallId: "c-2" }));
  const keys = peer.of("tool_intent").map(({ session }) => session.key);
  assert.deepEqual(keys, [MAIN, MAIN]); // by run id, then by session id
});

test("a blocked call carries the supervisor's reason", async () => {
  peer = await supervisor(() => ({ ...ALLOW, allow: false, reason: "ask the user" }));
  const gw = gateway(peer.path);
  const result = await gw.fire("before_tool_call", ...toolCall());
  assert.deepEqual(result, { block: true, blockReason: "ask the user" });
});

test("end_turn ends the reply operation of the session", async () => {
  peer = await supervisor(() => ({ ...ALLOW, allow: false, end_turn: true }));
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  let ended = 0;
  const registry = Symbol.for("openclaw.replyRunRegistry");
  globalThis[registry] = { activeRunsByKey: new Map([[MAIN, { abortByUser: () => (ended += 1) }]]) };
  await gw.fire("before_tool_call", ...toolCall());
  await until(() => ended === 1);
  delete globalThis[registry];
});

test("a held session stays held without a supervisor, until its user speaks", async () => {
  const mute = ({ type }) => (type === "tool_intent" || type === "user_message" ? undefined : {});
  peer = await supervisor(mute, { held: HELD, policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  assert.equal((await gw.fire("before_tool_call", ...toolCall())).block, true);
  await gw.fire("message_received", ...message("yes, go on"));
  assert.equal(await gw.fire("before_tool_call", ...toolCall({ toolCallId: "c-2" })), undefined);
});

test("with release=explicit a message leaves the hold in place", async () => {
  const mute = ({ type }) => (type === "tool_intent" ? undefined : {});
  peer = await supervisor(mute, { held: HELD, policy: { timeout_ms: 50, release: "explicit" } });
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  await gw.fire("message_received", ...message("thanks"));
  assert.equal((await gw.fire("before_tool_call", ...toolCall())).block, true);
});

test("a call blocked without the supervisor is reported as one that never ran", async () => {
  peer = await supervisor(() => ({}), { held: HELD, policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  peer.connections[0].destroy();
  await sleep(30); // away: intent and outcome wait for the reconnect
  assert.equal((await gw.fire("before_tool_call", ...toolCall())).block, true);
  await until(() => peer.of("tool_result").length === 1);
  const [intent, result] = [peer.of("tool_intent")[0], peer.of("tool_result")[0]];
  assert.equal(result.outcome, "blocked");
  assert.equal(result.tool_call_id, intent.tool_call_id);
  assert.ok(peer.frames.indexOf(intent) < peer.frames.indexOf(result));
  const [event, ctx] = toolCall({ toolCallId: "c-2" }); // an approval denied after our hook
  await gw.fire("after_tool_call", { ...event, result: { details: { status: "blocked" } } }, ctx);
  await until(() => peer.of("tool_result").length === 2);
  assert.equal(peer.of("tool_result")[1].outcome, "blocked");
});

test("a `holds` event replaces what is held", async () => {
  const mute = ({ type }) => (type === "tool_intent" ? undefined : {});
  peer = await supervisor(mute, { held: HELD, policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  peer.send({ type: "holds", held: [], interrupted: [] });
  await sleep(30);
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined);
});

test("a handler's fault stays inside", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const trap = new Proxy({}, { get: () => { throw new Error("trap"); } });
  for (const { name } of gw.hooks()) assert.equal(await gw.fire(name, trap, trap), undefined);
  for (const { name } of gw.hooks()) assert.equal(await gw.fire(name, undefined, undefined), undefined);
});

test("a turn's origin: a person's only with a message behind it", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const origin = async (prompt, ctx) => {
    await prepare(gw, prompt, ctx);
    return peer.of("turn_start").at(-1).origin;
  };
  assert.equal(await origin("hello from an RPC", { runId: "a" }), "system");
  await gw.fire("message_received", ...message());
  assert.equal(await origin("poll", { runId: "b", trigger: "heartbeat" }), "heartbeat");
  assert.equal(await origin(RECOVERY, { runId: "c" }), "recovery");
  assert.equal(await origin(`[Sun 18:46 UTC] ${RECOVERY}`, { runId: "c2" }), "recovery");
  const wrapped = "Sender (untrusted metadata):\n…\n\nplease deploy";
  assert.equal(await origin(wrapped, { runId: "d", trigger: "user" }), "user");
  assert.equal(peer.of("turn_start").at(-1).text, "please deploy");
  assert.equal(peer.of("turn_start").at(-1).route.to, "telegram:1");
  assert.equal(await origin(wrapped, { runId: "e", trigger: "user" }), "system"); // used up
  const provenance = { kind: "internal_system", sourceTool: "main_session_restart_recovery" };
  assert.equal(await origin("x", { runId: "f", inputProvenance: provenance }), "recovery");
});

test("a held job is held in its next run too, when the supervisor does not answer", async () => {
  const job = "agent:main:cron:j";
  const mute = ({ type }) => (type === "tool_intent" ? undefined : {});
  peer = await supervisor(mute, { held: [{ key: job, id: null }], policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  const run = (key) => ({ sessionKey: key, sessionId: key, runId: key });
  for (const [key, blocks] of [[`${job}:run:2`, true], ["agent:main:cron:other:run:2", false]]) {
    await prepare(gw, "go", run(key));
    const [event, ctx] = toolCall({ runId: key, toolCallId: key });
    const result = await gw.fire("before_tool_call", event, { ...ctx, ...run(key) });
    assert.equal(result?.block === true, blocks, key);
  }
});

test("a continuation that the gateway dispatches as a message is nobody's word", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("message_received", ...message("go on", { senderId: undefined, from: "" }));
  await gw.fire("message_received", ...message("go on", { messageId: "restart-sentinel:x" }));
  await prepare(gw, "go on");
  assert.equal(peer.of("user_message").length, 0);
  assert.equal(peer.of("turn_start")[0].origin, "system");
});

test("a command is no word on the task, but what it carries on is a person's", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const slash = { sessionKey: "agent:main:telegram:slash:1" };
  await gw.fire("message_received", ...message("/status", slash));
  await gw.fire("message_received", ...message("/status@labbot"));
  await prepare(gw, "an RPC");
  await gw.fire("message_received", ...message("/new do this", slash));
  const chat = { messageProvider: "telegram", channelId: "1" };
  await prepare(gw, "Sender:\n\ndo this", { runId: "r-2", ...chat });
  assert.equal(peer.of("user_message").length, 0);
  assert.deepEqual(peer.of("turn_start").map(({ origin }) => origin), ["system", "user"]);
  await gw.fire("message_received", ...message("/etc/hosts looks wrong"));
  await until(() => peer.of("user_message").length === 1);
});

test("every end of a session is passed on, with the session that takes its place", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const ends = [["new", "s-2"], ["idle", SESSION.sessionId], [undefined, "s-3"], ["shutdown", undefined]];
  for (const [reason, nextSessionId] of ends) {
    await gw.fire("session_end", { ...SESSION, reason, nextSessionId }, SESSION);
  }
  await until(() => peer.of("session_end").length === ends.length);
  const told = peer.of("session_end").map((e) => [e.session.id, e.reason, e.next_session_id]);
  const old = SESSION.sessionId;
  assert.deepEqual(told, [
    [old, "new", "s-2"], [old, "idle", old], [old, null, "s-3"], [old, "shutdown", null],
  ]);
});

test("a forum topic keeps its thread", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const metadata = { originatingChannel: "telegram", originatingTo: "telegram:-100" };
  await gw.fire("message_received", ...message("hi", { threadId: 77, metadata }));
  await until(() => peer.of("user_message").length === 1);
  assert.deepEqual(peer.of("user_message")[0].route, {
    channel: "telegram", to: "telegram:-100", account_id: "default", thread_id: "77",
  });
});

test("a retried attempt of a run gets the same text, and is reported once", async () => {
  peer = await supervisor(({ type }) => (type === "turn_start" ? { prepend: "Session was …" } : {}));
  const gw = gateway(peer.path);
  assert.deepEqual(await prepare(gw, "go"), { prependContext: "Session was …" });
  assert.deepEqual(await prepare(gw, "go"), { prependContext: "Session was …" });
  assert.equal(peer.of("turn_start").length, 1);
});

test("the end of a turn says whether the gateway was handed the text", async () => {
  const prepends = { "r-1": "Session was …", "r-2": null };
  const answer = ({ type, run_id: run }) =>
    (type !== "turn_start" ? {} : run in prepends ? { prepend: prepends[run] } : undefined);
  peer = await supervisor(answer, { policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  for (const runId of ["r-1", "r-2", "r-late"]) {
    await prepare(gw, "go", { runId });
    if (runId === "r-late") { // too late: the turn has gone on without it
      const { id } = peer.of("turn_start").at(-1);
      peer.send({ id, ok: true, result: { prepend: "Session was …" } });
      await sleep(20);
    }
    await gw.fire("agent_end", { runId, success: true, messages: [] }, { ...SESSION, runId });
  }
  await gw.fire("agent_end", { runId: "r-none", success: true }, SESSION); // no start was seen
  await until(() => peer.of("turn_end").length === 4);
  assert.deepEqual(peer.of("turn_end").map(({ told }) => told), [true, false, false, false]);
});

test("the recovery turn is claimed, with and without words", async () => {
  peer = await supervisor(() => ({ claim: true, reply: null }), { interrupted: HELD });
  const gw = gateway(peer.path);
  const ctx = { ...SESSION, runId: "r-9", senderId: "1" }; // the context names the last sender
  const reply = (runId) => gw.fire("before_agent_reply", { cleanedBody: RECOVERY }, { ...ctx, runId });
  assert.deepEqual(await reply("r-9"), { handled: true });
  peer.answer = () => ({ claim: true, reply: "Interrupted." });
  assert.deepEqual(await reply("r-10"), { handled: true, reply: { text: "Interrupted." } });
  peer.answer = () => ({ claim: false, reply: null });
  assert.equal(await reply("r-11"), undefined);
  assert.equal(await gw.fire("before_agent_reply", { cleanedBody: "hi" }, ctx), undefined);
  await gw.fire("message_received", ...message(RECOVERY)); // a person who quotes it
  assert.equal(await reply("r-12"), undefined);
  assert.equal(peer.of("recovery_turn").length, 3);
});

test("without an interruption there is no hook on outgoing messages", async () => {
  for (const interrupted of [true, false]) {
    peer = await supervisor(() => ({}));
    const gw = gateway(peer.path, { interrupted });
    assert.equal(gw.hooks().some(({ name }) => name === "message_sending"), interrupted);
    assert.equal(process.env.TIDEOVER_INTERRUPTED, undefined);
    peer.close();
  }
});

test("the native notice goes unless native recovery is wanted or nothing is known", async () => {
  const sending = { to: "telegram:1", content: NOTICE };
  for (const [native, interrupted, expected] of [
    ["ask", HELD, { cancel: true }], ["ride", HELD, { cancel: true }],
    ["native", HELD, undefined], ["ask", [], undefined],
  ]) {
    peer = await supervisor(() => ({}), { interrupted, policy: { native } });
    const gw = gateway(peer.path);
    await gw.fire("gateway_start", { port: 1 });
    assert.deepEqual(await gw.fire("message_sending", sending, {}), expected);
    assert.equal(await gw.fire("message_sending", { content: "hello" }, {}), undefined);
    peer.close();
  }
});

test("a command that yields is background, and a later `process` call shows its end", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  const [event, ctx] = toolCall();
  const details = { status: "running", pid: 7, sessionId: "crisp-slug" };
  await gw.fire("after_tool_call", { ...event, result: { details } }, ctx);
  const poll = { ...event, toolName: "process", params: { action: "poll", sessionId: "crisp-slug" } };
  await gw.fire("after_tool_call", { ...poll, result: { details } }, ctx);
  const done = { status: "completed", exitCode: 0, sessionId: "crisp-slug" };
  await gw.fire("after_tool_call", { ...poll, result: { details: done } }, ctx);
  await until(() => peer.of("background_end").length === 1);
  assert.deepEqual(peer.of("tool_result")[0].background, { pid: 7, id: "crisp-slug" });
  assert.deepEqual(peer.of("tool_result").map(({ outcome }) => outcome), ["background", "ok", "ok"]);
  assert.equal(peer.of("background_end")[0].background_id, "crisp-slug");
});

test("the gateway's own word tells the end of a background command", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const [event, ctx] = toolCall();
  const details = { status: "running", pid: 7, sessionId: "ember-orbit" };
  await prepare(gw, "go");
  await gw.fire("after_tool_call", { ...event, result: { details } }, ctx);
  const told = "An async command has completed:\n\nExec completed (ember-or, code 0) :: bg";
  await prepare(gw, told, { runId: "r-2", trigger: "heartbeat" });
  await prepare(gw, told, { runId: "r-3", trigger: "heartbeat" });
  const ends = peer.of("background_end").map(({ background_id, outcome }) => [background_id, outcome]);
  assert.deepEqual(ends, [["ember-orbit", "ok"]]);
});

test("a call cut off by the stop of the gateway has no outcome", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const [event, ctx] = toolCall();
  await gw.fire("gateway_stop", { reason: "gateway stopping" });
  await gw.fire("after_tool_call", { ...event, error: "Aborted" }, ctx);
  await gw.fire("after_tool_call", { ...event, toolCallId: "c-2", error: "no such file" }, ctx);
  await until(() => peer.of("tool_result").length === 1);
  assert.equal(peer.of("tool_result")[0].outcome, "error");
});

test("a second gateway in the process has an incarnation of its own", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 }, { config: { gateway: { auth: { token: {} } } } });
  await gw.fire("gateway_stop", { reason: "gateway restarting" });
  gw.register();
  await gw.fire("gateway_start", { port: 1 });
  const [one, two] = peer.of("gateway_start");
  assert.equal(one.incarnation, peer.of("hello")[0].gateway.incarnation);
  assert.notEqual(one.incarnation, two.incarnation);
  assert.equal(one.auth.token, null); // a SecretRef is not a token
});
