import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, mock, test } from "node:test";

import { QueueWatch } from "../../packaging/openclaw-plugin/queue-watch.js";
import { MAIN, SESSION, gateway, stateDirectory, supervisor, until } from "./support.js";

const PENDING = { entries: [{ id: "e-1", status: "pending", retry_count: 1 }], total: 1 };
const FAILED = { entries: [{ id: "e-1", status: "failed", retry_count: 5 }], total: 1 };
const EMPTY = { entries: [], total: 0 };

let home;
let peer;
afterEach(() => {
  mock.timers.reset();
  home?.remove();
  peer?.close();
});

/** A watch over what `found` says, on a clock of its own: when it looked, and what it told. */
function watched(found) {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const self = { found, looks: [], told: [], seconds: 0 };
  self.watch = new QueueWatch({
    read: () => {
      self.looks.push(self.seconds);
      if (self.found instanceof Error) throw self.found;
      return self.found;
    },
    tell: (what) => self.told.push(what),
  });
  self.pass = (seconds) => {
    for (let n = 0; n < seconds; n += 1) {
      self.seconds += 1;
      mock.timers.tick(1000);
    }
  };
  return self;
}

test("one look after a start and after an event, and no more while nothing waits", () => {
  const it = watched(EMPTY);
  it.watch.started();
  it.pass(100);
  it.watch.changed();
  it.pass(1000);
  assert.deepEqual(it.looks, [20, 115]);
  assert.deepEqual(it.told, [EMPTY]);
});

test("while something waits it is looked at once a minute, and told when it changed", () => {
  const it = watched(PENDING);
  it.watch.changed();
  it.pass(140);
  assert.deepEqual(it.looks, [15, 75, 135]);
  assert.deepEqual(it.told, [PENDING]);
  it.found = FAILED;
  it.pass(1000);
  assert.deepEqual(it.looks, [15, 75, 135, 195]);
  assert.deepEqual(it.told, [PENDING, FAILED]);
});

test("many events make few looks, and each event has one after it", () => {
  const it = watched(PENDING);
  for (let n = 0; n < 60; n += 1) {
    it.watch.changed();
    it.pass(1);
  }
  it.pass(100); // the last event was at 59; the minute goes on from the look after it
  assert.deepEqual(it.looks, [15, 29, 43, 57, 71, 81, 141]);
});

test("between two looks are ten seconds at least", () => {
  const it = watched(EMPTY);
  it.watch.changed();
  it.pass(2);
  it.watch.changed();
  it.pass(100);
  assert.deepEqual(it.looks, [15, 25]);
});

test("a look that fails or throws is not told; what waited is looked at again", () => {
  const it = watched(PENDING);
  it.watch.changed();
  it.pass(20);
  it.found = { error: "database is locked" };
  it.pass(60);
  it.found = PENDING;
  it.pass(60);
  assert.deepEqual(it.looks, [15, 75, 135]);
  it.found = new Error("a fault of ours");
  it.pass(1000);
  assert.deepEqual(it.looks, [15, 75, 135, 195]);
  it.found = EMPTY;
  it.watch.changed(); // it is alive
  it.pass(20);
  assert.deepEqual(it.told, [PENDING, EMPTY]);
});

test("where there is no such queue nothing is told", () => {
  const it = watched(null);
  it.watch.started();
  it.pass(1000);
  assert.deepEqual(it.looks, [20]);
  assert.deepEqual(it.told, []);
  assert.equal(JSON.stringify(it.watch.answer()), '{"entries":null}');
});

test("a supervisor that connects anew is told again", () => {
  const it = watched(PENDING);
  it.watch.changed();
  it.pass(80);
  it.watch.forget();
  it.pass(60);
  assert.deepEqual(it.told, [PENDING, PENDING]);
});

test("a look for whoever asks is told like any other", () => {
  const it = watched(PENDING);
  it.watch.changed();
  it.pass(20);
  it.found = EMPTY;
  assert.deepEqual(it.watch.answer(), { ...EMPTY, error: undefined });
  it.pass(1000);
  assert.deepEqual(it.told, [PENDING, EMPTY]);
  assert.deepEqual(it.looks, [15, 20]);
});

const asked = async (id) => {
  peer.send({ id, type: "queue" });
  await until(() => peer.frames.some((frame) => frame.id === id));
  return peer.frames.find((frame) => frame.id === id).result;
};

test("the supervisor's `queue` is answered by a fresh look", async () => {
  home = stateDirectory();
  peer = await supervisor(() => ({}), { state_dir: home.dir });
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  assert.deepEqual(await asked("q1"), { entries: [], total: 0 });
  home.insert({ id: "e-1", session_key: MAIN });
  const { entries, total } = await asked("q2");
  assert.deepEqual([entries[0].id, entries[0].session_key, total], ["e-1", MAIN, 1]);
  home.db.close();
  writeFileSync(path.join(home.dir, "state", "openclaw.sqlite"), "no database at all");
  const spoilt = await asked("q3");
  assert.equal(spoilt.entries, null);
  assert.equal(typeof spoilt.error, "string");
});

test("a supervisor that names no state directory, or one without the file, has no queue", async () => {
  home = stateDirectory({ database: false });
  for (const welcome of [{}, { state_dir: home.dir }, { state_dir: 7 }]) {
    peer = await supervisor(() => ({}), welcome);
    const gw = gateway(peer.path);
    await gw.fire("gateway_start", { port: 1 });
    assert.deepEqual(await asked("q1"), { entries: null });
    peer.close();
  }
});

test("a turn's end and a failed message have the queue looked at, a sent one does not", async () => {
  home = stateDirectory();
  home.insert({ id: "e-1", session_key: MAIN });
  peer = await supervisor(() => ({}), { state_dir: home.dir });
  const gw = gateway(peer.path);
  await gw.fire("message_sent", { to: "1", content: "x", success: true }, {});
  await until(() => peer.of("message_sent").length === 1); // connected, so that only the watch waits
  const later = async (seconds) => {
    for (let n = 0; n < seconds; n += 1) mock.timers.tick(1000);
    for (let n = 0; n < 50; n += 1) await new Promise((resolve) => setImmediate(resolve));
    return peer.of("native_queue").map(({ entries }) => entries.length);
  };
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  assert.deepEqual(await later(30), []);
  await gw.fire("message_sent", { to: "1", content: "x", success: false }, {});
  assert.deepEqual(await later(16), [1]);
  home.insert({ id: "e-2" });
  await gw.fire("agent_end", { runId: "r-1", success: true, messages: [] }, SESSION);
  assert.deepEqual(await later(16), [1, 2]);
  const [report] = peer.of("native_queue");
  assert.deepEqual(Object.keys(report), ["type", "entries", "total"]); // an event has no id
});

test("a database that cannot be read keeps no hook from its answer", async () => {
  home = stateDirectory({ database: false });
  peer = await supervisor(() => ({}), { state_dir: "\0 no path" });
  const gw = gateway(peer.path);
  await gw.fire("gateway_start", { port: 1 });
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  await gw.fire("message_sent", { to: "1", content: "x", success: false }, {});
  await gw.fire("agent_end", { runId: "r-1", success: true, messages: [] }, SESSION);
  mock.timers.tick(600_000);
  mock.timers.reset();
  assert.equal((await asked("q1")).entries, null);
  assert.deepEqual(peer.of("native_queue"), []);
});
