import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { MAIN, SESSION, gateway, message, supervisor } from "./support.js";

const RECOVERY = "[System] Your previous turn was interrupted by a gateway restart.";
const OTHER = { sessionKey: "agent:main:telegram:group:-7", sessionId: "s-7", agentId: "main" };
const CHAT = { messageProvider: "telegram", channelId: "1" };

let peer;
afterEach(() => {
  mock.timers.reset();
  peer?.close();
});

/** A gateway, and a function that starts a turn and gives what was reported of it. */
async function turns() {
  peer = await supervisor();
  const gw = gateway(peer.path);
  let run = 0;
  const turn = async (prompt, ctx = {}) => {
    run += 1;
    await gw.fire("agent_turn_prepare", { prompt, messages: [] }, { ...SESSION, runId: `t-${run}`, ...ctx });
    return peer.of("turn_start").at(-1);
  };
  return { gw, turn, say: (words, over) => gw.fire("message_received", ...message(words, over)) };
}

test("a command of one session is no word in another, whatever the prompt contains", async () => {
  const { say, turn } = await turns();
  await say("/verbose on");
  await say("/new interrupted");
  const recovered = await turn(`${RECOVERY} It went on.`, OTHER);
  assert.deepEqual([recovered.origin, recovered.route], ["recovery", null]);
  await say("/reset deploy it");
  const foreign = await turn("deploy it", { ...OTHER, messageProvider: "telegram", channelId: "-7" });
  assert.deepEqual([foreign.origin, foreign.route], ["system", null]);
  assert.equal((await turn("deploy it", OTHER)).origin, "system"); // which says nothing of a chat
});

test("only the rest of /new and /reset is carried on, as whole lines, by its sender", async () => {
  const { say, turn } = await turns();
  await say("/verbose on");
  assert.equal((await turn("on", CHAT)).origin, "system");
  await say("/new on");
  assert.equal((await turn("go on", CHAT)).origin, "system");
  assert.equal((await turn("on", { ...CHAT, senderId: "2" })).origin, "system");
  assert.equal((await turn("on", { ...CHAT, accountId: "second" })).origin, "system");
  const carried = await turn("[Sun 2026-11-22 18:46 UTC] on", { ...CHAT, senderId: "1" });
  assert.deepEqual([carried.origin, carried.route.to], ["user", "telegram:1"]);
  assert.equal((await turn("on", CHAT)).origin, "system"); // used up
});

test("a prompt of the gateway's own takes no message, even one whose words are in it", async () => {
  const { say, turn } = await turns();
  await say("on");
  for (const prompt of [
    RECOVERY.replace("by a", "on a"),
    "Exec completed (ember-or, code 0) :: power\non\n",
    "[Sun 2026-11-22 18:46 UTC] An async command you ran earlier has completed.\n\non",
    "[Inter-session message] sourceSession=x\non",
    "OpenClaw runtime context (internal):\n[Internal task completion event]\non",
    "A background task completed. Use this result.\n\non",
    "Read HEARTBEAT.md if it exists.\non",
  ]) assert.notEqual((await turn(prompt)).origin, "user", prompt);
  assert.equal((await turn("on", { inputProvenance: { kind: "inter_session" } })).origin, "system");
  assert.equal((await turn("on", { trigger: "memory" })).origin, "system");
  assert.equal((await turn("on")).origin, "user"); // still there for its own turn
});

test("a person's words are known in every form a gateway gives them", async () => {
  const { say, turn } = await turns();
  const long = "first line  \r\nsecond line\n\nfourth";
  for (const [words, prompt] of [
    ["on", "on"],
    ["on", "[Sun 2026-11-22 18:46 UTC] on"],
    ["on", "System: [2026-11-22 18:46:01 UTC] Exec completed (ember-or, code 0) :: x\n\n[Sun 18:46 UTC] on"],
    ["on", "Conversation info\n```json\n{}\n```\n\non\n\nRuntime: x"],
    [long, "Sender:\n\nfirst line\nsecond line\n\nfourth\n"],
    ["what does\nExec completed (a, code 0)\nmean?", "what does\nExec completed (a, code 0)\nmean?"],
    ["x".repeat(9000), `Sender:\n\n${"x".repeat(5000)}\n[cut]`],
  ]) {
    await say(words);
    assert.equal((await turn(prompt)).origin, "user", prompt.slice(0, 80));
    assert.equal((await turn(prompt)).origin, "system", "used up");
  }
});

test("messages collected into one prompt are used up together", async () => {
  const { say, turn } = await turns();
  await say("one");
  await say("two");
  const both = "[Queued messages while agent was busy]\n\n---\nQueued #1 (from A)\none\n\n---\nQueued #2\ntwo";
  assert.equal((await turn(both)).text, "two");
  assert.equal((await turn(both)).origin, "system");
});

test("a message without its words counts while fresh, one with them for an hour", async () => {
  mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const { say, turn } = await turns();
  await say("<media:audio>");
  assert.equal((await turn("what the voice said")).origin, "user");
  await say("<media:audio>");
  mock.timers.tick(121_000);
  assert.equal((await turn("what the voice said")).origin, "system");
  await say("deploy");
  mock.timers.tick(1_800_000);
  assert.equal((await turn("deploy")).origin, "user"); // it had queued behind a long turn
  await say("deploy");
  mock.timers.tick(3_700_000);
  assert.equal((await turn("deploy")).origin, "system");
});
