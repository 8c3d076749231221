import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { MAIN, SESSION, gateway, supervisor, until } from "./support.js";

const ALLOW = { durable: true, allow: true, reason: null, end_turn: false };

let peer;
afterEach(() => peer?.close());

const call = (toolName, over = {}) => ({ toolName, params: {}, ...over });
const prepare = (gw, prompt) => gw.fire("agent_turn_prepare", { prompt, messages: [] }, { ...SESSION });

test("a turn and its calls without ids get ids that hold from start to end", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  await prepare(gw, "go"); // a retried attempt
  await gw.fire("before_tool_call", call("exec"), SESSION);
  await gw.fire("before_tool_call", call("read"), SESSION);
  await gw.fire("after_tool_call", call("read"), SESSION);
  await gw.fire("after_tool_call", call("exec", { error: "no" }), SESSION);
  await gw.fire("agent_end", { success: true }, SESSION);
  await prepare(gw, "go");
  await until(() => peer.of("turn_start").length === 2 && peer.of("tool_result").length === 2);
  const [exec, read] = peer.of("tool_intent");
  const results = peer.of("tool_result").map(({ tool_call_id: id, outcome }) => [id, outcome]);
  assert.deepEqual(results, [[read.tool_call_id, "ok"], [exec.tool_call_id, "error"]]);
  assert.match(exec.tool_call_id, /^call-[0-9a-f-]{36}$/);
  assert.notEqual(exec.tool_call_id, read.tool_call_id);
  const [start, next] = peer.of("turn_start").map(({ run_id: run }) => run);
  assert.match(start, /^run-1-[0-9a-f]{8}$/);
  assert.match(next, /^run-2-[0-9a-f]{8}$/);
  for (const type of ["tool_intent", "tool_result", "turn_end"]) {
    for (const { run_id: run } of peer.of(type)) assert.equal(run, start);
  }
});

test("a call without ids outside any turn we saw is journaled, too", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  await gw.fire("before_tool_call", call("exec"), SESSION);
  const [intent] = peer.of("tool_intent");
  assert.equal(intent.session.key, MAIN);
  assert.match(intent.run_id, /^run-1-/);
});

test("the result of a blocked call without an id closes no other", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  await prepare(gw, "go");
  peer.answer = () => ({ ...ALLOW, allow: false });
  await gw.fire("before_tool_call", call("exec"), SESSION);
  peer.answer = () => ALLOW;
  const blocked = call("exec", { result: { details: { status: "blocked" } } });
  await gw.fire("after_tool_call", blocked, SESSION);
  await gw.fire("before_tool_call", call("exec"), SESSION);
  await gw.fire("after_tool_call", call("exec"), SESSION);
  await until(() => peer.of("tool_result").length > 0);
  const [, second] = peer.of("tool_intent");
  assert.deepEqual(peer.of("tool_result").map((r) => r.tool_call_id), [second.tool_call_id]);
});
