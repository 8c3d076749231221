import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, test } from "node:test";

import { MAIN, gateway, sleep, supervisor, until } from "./support.js";

const TEXT = "Grüße, the deploy is done";
const CTX = { channelId: "telegram", accountId: "default", conversationId: "4242", sessionKey: MAIN };

let peer;
afterEach(() => peer?.close());

test("a message that was sent is reported by its hash, and asks for no answer", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const event = { to: "4242", content: TEXT, success: true, messageId: "77", sessionKey: MAIN };
  await gw.fire("message_sent", event, CTX);
  await until(() => peer.of("message_sent").length === 1);
  assert.deepEqual(peer.of("message_sent"), [{
    type: "message_sent", channel: "telegram", to: "4242", account_id: "default",
    session_key: MAIN, success: true, message_id: "77", error: null,
    text_sha256: createHash("sha256").update(TEXT).digest("hex"),
    text_bytes: Buffer.byteLength(TEXT),
  }]);
  assert.ok(!JSON.stringify(peer.frames).includes("deploy"));
});

test("one that was not is reported with what is known of it", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  const error = `500: ${"x".repeat(500)}`;
  await gw.fire("message_sent", { to: "4242", content: TEXT, success: false, error }, {
    channelId: "telegram", accountId: "default", conversationId: "4242",
  });
  await gw.fire("message_sent", { success: false }, {});
  await until(() => peer.of("message_sent").length === 2);
  const [known, bare] = peer.of("message_sent");
  assert.equal(known.success, false);
  assert.equal(known.session_key, null); // 2026.5.5 names none
  assert.equal(known.error, error.slice(0, 300));
  assert.deepEqual(bare, {
    type: "message_sent", channel: null, to: null, account_id: null, session_key: null,
    success: false, message_id: null, error: null,
    text_sha256: createHash("sha256").update("").digest("hex"), text_bytes: 0,
  });
});

test("what was sent while the supervisor was away is told when it is back", async () => {
  peer = await supervisor();
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  peer.connections[0].destroy();
  await sleep(30);
  await gw.fire("message_sent", { to: "1", content: "one", success: true }, CTX);
  await gw.fire("message_sent", { to: "2", content: "two", success: true }, CTX);
  await until(() => peer.of("message_sent").length === 2);
  assert.deepEqual(peer.of("message_sent").map(({ to }) => to), ["1", "2"]);
});
