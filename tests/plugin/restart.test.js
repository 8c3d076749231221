import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { MAIN, SESSION, gateway, message, sleep, supervisor, toolCall, until } from "./support.js";

const RECOVERY = "[System] Your previous turn was interrupted by a gateway restart.";
const ALLOW = { durable: true, allow: true, reason: null, end_turn: false };
const HELD = [{ key: MAIN, id: null }];

let peer;
afterEach(() => peer?.close());

const prepare = (gw, prompt, ctx = {}) =>
  gw.fire("agent_turn_prepare", { prompt, messages: [] }, { ...SESSION, runId: "r-1", ...ctx });

test("what was said to a gateway that is gone is behind no turn of the next", async () => {
  for (const stops of [true, false]) { // a gateway may also go without a word
    peer = await supervisor();
    const gw = gateway(peer.path);
    await gw.fire("gateway_start", { port: 1 });
    await gw.fire("message_received", ...message("on")); // steered into a running turn
    await gw.fire("message_received", ...message("/new do this"));
    if (stops) await gw.fire("gateway_stop", { reason: "gateway restarting" });
    await gw.fire("gateway_start", { port: 1 });
    for (const [n, prompt] of ["on", "do this", "a sub-agent is done", RECOVERY].entries()) {
      await prepare(gw, prompt, { runId: `n-${n}`, messageProvider: "telegram", channelId: "1" });
    }
    const origins = peer.of("turn_start").map(({ origin }) => origin);
    assert.deepEqual(origins, ["system", "system", "system", "recovery"]);
    peer.close();
  }
});

test("what was said to the new gateway before it reports its start counts", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  await gw.fire("gateway_stop", { reason: "gateway restarting" });
  await sleep(3);
  await gw.fire("message_received", ...message("deploy"));
  await gw.fire("gateway_start", { port: 1 });
  await prepare(gw, "deploy");
  assert.equal(peer.of("turn_start")[0].origin, "user");
});

test("the calls of a gateway that is gone are not open in the next", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  await prepare(gw, "go");
  await gw.fire("before_tool_call", ...toolCall());
  await gw.fire("gateway_stop", { reason: "gateway restarting" });
  const open = async (id) => {
    peer.send({ id, type: "flush", deadline_ms: 400 });
    await until(() => peer.frames.some((frame) => frame.id === id));
    return peer.frames.find((frame) => frame.id === id).result.open.length;
  };
  assert.equal(await open("f1"), 1); // its end may still ask
  await gw.fire("gateway_start", { port: 1 });
  assert.equal(await open("f2"), 0);
});

test("a word said before the restart does not release what is held after it", async () => {
  const mute = ({ type }) => (["gateway_start", "tool_intent"].includes(type) ? undefined : {});
  peer = await supervisor(mute, { held: HELD, policy: { timeout_ms: 50 } });
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  await prepare(gw, "go");
  await gw.fire("message_received", ...message("yes"));
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined);
  await gw.fire("gateway_stop", { reason: "gateway restarting" });
  await gw.fire("gateway_start", { port: 1 });
  assert.equal((await gw.fire("before_tool_call", ...toolCall({ toolCallId: "c-2" }))).block, true);
});
