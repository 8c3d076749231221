import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { readQueue } from "../../packaging/openclaw-plugin/native-queue.js";
import { MAIN, stateDirectory } from "./support.js";

const SCRIPT = fileURLToPath(
  new URL("../../packaging/openclaw-plugin/native-queue.js", import.meta.url),
);
const TEXT = "the text of the message";

let home;
afterEach(() => home?.remove());

const script = (...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, ...args]);
  assert.equal(stderr.toString(), "");
  assert.match(stdout.toString(), /^.*\n$/); // one line
  return { status, ...JSON.parse(stdout) };
};

test("a row is told without its message", () => {
  home = stateDirectory();
  home.insert({
    id: "e-1", session_key: MAIN, channel: "telegram", target: "4242", account_id: "default",
    retry_count: 2, last_attempt_at: 20, last_error: "x".repeat(400), enqueued_at: 10,
    recovery_state: "send_attempt_started", platform_send_started_at: 19, entry_json: TEXT,
  });
  const found = readQueue(home.dir);
  assert.deepEqual(found, {
    total: 1,
    entries: [{
      queue: "outbound-prepared-v1", id: "e-1", status: "pending", kind: null, session_key: MAIN,
      channel: "telegram", to: "4242", account_id: "default", retry_count: 2,
      last_attempt_at_ms: 20, last_error: "x".repeat(300), recovery_state: "send_attempt_started",
      platform_send_started_at_ms: 19, enqueued_at_ms: 10, failed_at_ms: null,
    }],
  });
  assert.deepEqual(script(home.dir), { status: 0, ...found });
});

test("what is no work to be done is left out, and what waits comes oldest first", () => {
  home = stateDirectory();
  home.insert({ id: "young", enqueued_at: 30 });
  home.insert({ id: "given-up", status: "failed", enqueued_at: 20, failed_at: 25 });
  home.insert({ id: "old", queue_name: "session", enqueued_at: 10 });
  home.insert({ id: "legacy", queue_name: "outbound", enqueued_at: 5 });
  home.insert({ id: "staged", queue_name: "outbound-media-staging", enqueued_at: 1 });
  home.insert({ id: "receipt", status: "completed", enqueued_at: 1 });
  const { entries, total } = readQueue(home.dir);
  assert.deepEqual(entries.map(({ id }) => id), ["legacy", "old", "given-up", "young"]);
  assert.equal(total, 4);
});

test("of too many the pending ones are told, and all are counted", () => {
  home = stateDirectory();
  home.db.exec("BEGIN");
  for (let n = 0; n < 600; n += 1) home.insert({ id: `f-${n}`, status: "failed", enqueued_at: n });
  home.insert({ id: "pending", enqueued_at: 1000 });
  home.db.exec("COMMIT");
  const { entries, total } = readQueue(home.dir);
  assert.equal(total, 601);
  assert.equal(entries.length, 500);
  assert.equal(entries.at(-1).id, "pending");
});

test("no row is over a limit of the supervisor's, and no report over that of a frame", () => {
  home = stateDirectory();
  home.db.exec("BEGIN");
  home.insert({ id: "i".repeat(513) });
  home.insert({ id: "odd", session_key: "k".repeat(4097), channel: "é".repeat(257) });
  for (let n = 0; n < 400; n += 1) {
    home.insert({ id: `e-${n}`, session_key: "k".repeat(4096), enqueued_at: 10 + n });
  }
  home.db.exec("COMMIT");
  const found = readQueue(home.dir);
  const [odd] = found.entries;
  assert.deepEqual([odd.id, odd.session_key, odd.channel], ["odd", null, null]);
  assert.equal(found.total, 402);
  assert.ok(found.entries.length > 100 && Buffer.byteLength(JSON.stringify(found)) < 1_000_000);
});

test("a commit that the gateway has just made is seen, and the gateway goes on writing", () => {
  home = stateDirectory();
  for (let n = 1; n <= 20; n += 1) {
    home.insert({ id: `e-${n}`, enqueued_at: n });
    assert.equal(readQueue(home.dir).total, n);
  }
  home.db.exec("BEGIN IMMEDIATE"); // a writer does not keep a reader out
  assert.equal(readQueue(home.dir).total, 20);
  home.db.exec("COMMIT");
});

test("without such a file there is no queue, and none is made", () => {
  home = stateDirectory({ database: false });
  assert.equal(readQueue(home.dir), null);
  assert.deepEqual(script(home.dir), { status: 0, entries: null });
  mkdirSync(path.join(home.dir, "state"));
  assert.equal(readQueue(home.dir), null);
  assert.deepEqual(readdirSync(path.join(home.dir, "state")), []);
});

test("a Node without sqlite has no queue to show", (t) => {
  home = stateDirectory();
  t.mock.method(process, "getBuiltinModule", () => undefined);
  assert.equal(readQueue(home.dir), null);
});

test("a database that is corrupt, another one or none costs the look and nothing more", () => {
  for (const spoil of [
    (file) => writeFileSync(file, "this is not a database".repeat(100)),
    (file) => writeFileSync(file, ""),
    (file) => mkdirSync(file),
  ]) {
    home = stateDirectory({ database: false });
    mkdirSync(path.join(home.dir, "state"));
    spoil(path.join(home.dir, "state", "openclaw.sqlite"));
    const found = readQueue(home.dir);
    assert.deepEqual(Object.keys(found), ["error"]);
    assert.deepEqual(script(home.dir), { status: 1, entries: null, ...found });
    home.remove();
  }
  assert.equal(typeof readQueue(undefined).error, "string");
  assert.equal(script().status, 1);
});

test("a database that is locked is not waited for", () => {
  home = stateDirectory({ journal: "delete" });
  home.insert({ id: "e-1" });
  home.db.exec("BEGIN EXCLUSIVE");
  const start = Date.now();
  assert.match(readQueue(home.dir).error, /locked/);
  assert.ok(Date.now() - start < 500, `${Date.now() - start} ms`);
  home.db.exec("COMMIT");
  assert.equal(readQueue(home.dir).total, 1);
});
