import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { MAIN, SESSION, gateway, supervisor, toolCall } from "./support.js";

const RUN = "tideover-resume-1";
const ALLOW = { durable: true, allow: true, reason: null, end_turn: false };
const CHAT = {
  ...SESSION, channel: "telegram", from: "telegram:4242", to: "telegram:4242", accountId: "default",
  senderId: "4242", isAuthorizedSender: true,
};

let peer;
afterEach(() => peer?.close());

const say = (gw, args, over = {}) => gw.commands()[0].handler({ ...CHAT, args, ...over });

test("the command is for those only whom the gateway lets command it", async () => {
  peer = await supervisor();
  const [command] = gateway(peer.path).commands();
  assert.deepEqual([command.name, command.acceptsArgs, command.requireAuth], ["resume", true, true]);
});

test("without TIDEOVER_SOCKET there is no command", () => {
  assert.equal(gateway(null).commands().length, 0);
});

test("a person's word reaches the supervisor, and its words come back", async () => {
  peer = await supervisor(() => ({ text: "the facts" }));
  const gw = gateway(peer.path);
  for (const args of [undefined, "", " YES ", "done", "skip", "list"]) {
    assert.deepEqual(await say(gw, args), { text: "the facts" });
  }
  const asked = peer.of("resume_asked");
  assert.deepEqual(asked.map(({ choice }) => choice), ["ask", "ask", "yes", "done", "skip", "list"]);
  assert.equal(asked[0].session.key, MAIN);
  assert.equal(asked[0].group, false);
  assert.deepEqual(asked[0].route, {
    channel: "telegram", to: "telegram:4242", account_id: "default", thread_id: null,
  });
});

test("a group and its topic are told as such", async () => {
  peer = await supervisor(() => ({ text: "t" }));
  const gw = gateway(peer.path);
  await say(gw, "", {
    sessionKey: "agent:main:telegram:group:-100123:topic:1", from: "telegram:group:-100123:topic:1",
    to: "telegram:-100123", messageThreadId: 1,
  });
  const [{ group, route }] = peer.of("resume_asked");
  assert.equal(group, true);
  assert.deepEqual([route.to, route.thread_id], ["telegram:-100123", "1"]);
});

test("another word is explained and asks nobody", async () => {
  peer = await supervisor(() => ({ text: "t" }));
  const gw = gateway(peer.path);
  assert.match((await say(gw, "yes please")).text, /\/resume yes to run/);
  assert.equal(peer.of("resume_asked").length, 0);
});

test("a refusal of the supervisor says that nothing was run", async () => {
  peer = await supervisor(() => ({ error: { code: "not_durable", message: "the disk is full" } }));
  const gw = gateway(peer.path);
  assert.equal((await say(gw, "yes")).text, "Nothing was run: the disk is full.");
});

test("the permitted call runs with the recorded arguments and no others", async () => {
  const recorded = { command: "./deploy.sh", yieldMs: 1 };
  peer = await supervisor(() => ({ ...ALLOW, arguments: recorded }));
  const gw = gateway(peer.path);
  const [event, ctx] = toolCall({ runId: RUN });
  const given = { command: "rm -rf /", workdir: "/", yieldMs: 9 };
  const { params, block } = await gw.fire("before_tool_call", { ...event, params: given }, ctx);
  // As the gateway lays them over the model's own.
  const effective = { ...given, ...params };
  assert.equal(block, undefined);
  assert.equal(JSON.stringify(effective), JSON.stringify({ command: "./deploy.sh", yieldMs: 1 }));
});

test("an ordinary call is left as it is", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  assert.equal(await gw.fire("before_tool_call", ...toolCall()), undefined);
});

test("in a turn of a resume no call runs without an answer", async () => {
  peer = await supervisor(({ type }) => (type === "tool_intent" ? undefined : {}));
  const gw = gateway(peer.path);
  assert.equal((await gw.fire("before_tool_call", ...toolCall({ runId: RUN })))?.block, true);
  assert.equal(await gw.fire("before_tool_call", ...toolCall({ runId: "r-other", toolCallId: "c-2" })), undefined);
});

test("a call of the gateway's own invoke interface is no call of a turn", async () => {
  peer = await supervisor(() => ALLOW);
  const gw = gateway(peer.path);
  const event = { toolName: "message", params: {}, toolCallId: "http-1" };
  const ctx = { toolName: "message", agentId: "main", sessionKey: MAIN, toolCallId: "http-1" };
  assert.equal(await gw.fire("before_tool_call", event, ctx), undefined);
  assert.equal(peer.of("tool_intent").length, 0);
});

test("a word that cannot be sent now is not sent later", async () => {
  peer = await supervisor(() => ({ text: "t" }));
  const gw = gateway(peer.path);
  await say(gw, "");
  const gone = peer;
  gone.connections[0].destroy();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.match((await say(gw, "yes")).text, /nothing was run/);
  await new Promise((resolve) => setTimeout(resolve, 700)); // it is back by then
  assert.deepEqual(gone.of("resume_asked").map(({ choice }) => choice), ["ask"]);
});

test("the code of a word comes along", async () => {
  peer = await supervisor(() => ({ text: "t" }));
  const gw = gateway(peer.path);
  await say(gw, "yes 1f0c");
  assert.deepEqual(peer.of("resume_asked").map(({ choice, code }) => [choice, code]), [["yes", "1f0c"]]);
});

test("a word of which no answer comes is not called undone", async () => {
  peer = await supervisor(({ type }) => (type === "resume_asked" ? undefined : {}));
  const gw = gateway(peer.path);
  const said = say(gw, "yes");
  while (peer.of("resume_asked").length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  peer.connections[0].destroy();
  assert.match((await said).text, /is not known/);
});
