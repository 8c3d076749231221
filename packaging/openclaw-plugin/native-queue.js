// A look at the gateway's own queue where it is kept in SQLite (2026.9.6; 2026.5.5 has files).
//
// Read only, and never the column that holds the messages. Also a script, for a gateway that is
// down: `node native-queue.js STATE_DIR` prints one line of JSON.

import { realpathSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROWS_MAX = 500;
const ROWS_BYTES_MAX = 786_432; // so that a report with all of them fits a frame
const BUSY_MS = 50; // the look is synchronous: the gateway waits while it waits for a lock
const ERROR_CHARS_MAX = 300;
const NAME_BYTES_MAX = 512; // what the supervisor takes of an identifier …
const KEY_BYTES_MAX = 4096; // … and of a session key or a target

// Files that belong to a message, and receipts of what was delivered, are no work to be done.
const WAITING = "queue_name NOT LIKE 'outbound-media-%' AND status <> 'completed'";

// Where there are too many it is the pending ones that matter, so they come first. Rows are chosen
// by rowid, from an index: `enqueued_at` lies behind the message, which may be long.
const ORDER = "ORDER BY status <> 'pending', enqueued_at, id";
const ROWS = `
  SELECT queue_name, id, status, entry_kind, session_key, channel, target, account_id, retry_count,
         last_attempt_at, last_error, recovery_state, platform_send_started_at, enqueued_at, failed_at
    FROM delivery_queue_entries
   WHERE rowid IN
         (SELECT rowid FROM delivery_queue_entries WHERE ${WAITING} ${ORDER} LIMIT ${ROWS_MAX})
   ${ORDER}`;
const TOTAL = `SELECT count(*) AS total FROM delivery_queue_entries WHERE ${WAITING}`;

/**
 * `{ entries, total }`, oldest first; `{ error }` when the look failed; null where the gateway
 * keeps no such queue or this Node cannot read it. Never throws.
 */
export function readQueue(stateDir) {
  try {
    const file = path.join(stateDir, "state", "openclaw.sqlite");
    // Not by opening it: in the gateway's process, closing the file would drop SQLite's locks.
    if (statSync(file, { throwIfNoEntry: false }) === undefined) return null;
    const sqlite = process.getBuiltinModule?.("node:sqlite");
    return sqlite === undefined ? null : look(sqlite, file);
  } catch (error) {
    return { error: String(error?.message ?? error).slice(0, ERROR_CHARS_MAX) };
  }
}

function look({ DatabaseSync }, file) {
  const db = new DatabaseSync(file, { readOnly: true, timeout: BUSY_MS });
  try {
    db.exec("BEGIN"); // one moment for both; it ends with the connection
    return { entries: fitting(db.prepare(ROWS).all()), total: db.prepare(TOTAL).get().total };
  } finally {
    db.close();
  }
}

// As many as fit, oldest first.
function fitting(rows) {
  const entries = [];
  let bytes = 0;
  for (const entry of rows.map(entryOf)) {
    if (Buffer.byteLength(entry.id) > NAME_BYTES_MAX) continue; // cut, it would be another one's
    bytes += Buffer.byteLength(JSON.stringify(entry)) + 1;
    if (bytes > ROWS_BYTES_MAX) break;
    entries.push(entry);
  }
  return entries.sort((a, b) => a.enqueued_at_ms - b.enqueued_at_ms);
}

const entryOf = (row) => ({
  queue: within(row.queue_name, NAME_BYTES_MAX) ?? "",
  id: row.id,
  status: within(row.status, NAME_BYTES_MAX) ?? "",
  kind: within(row.entry_kind, NAME_BYTES_MAX),
  session_key: within(row.session_key, KEY_BYTES_MAX),
  channel: within(row.channel, NAME_BYTES_MAX),
  to: within(row.target, KEY_BYTES_MAX),
  account_id: within(row.account_id, NAME_BYTES_MAX),
  retry_count: Math.min(Math.max(row.retry_count, 0), 0xffff_ffff),
  last_attempt_at_ms: row.last_attempt_at,
  last_error: typeof row.last_error === "string" ? row.last_error.slice(0, ERROR_CHARS_MAX) : null,
  recovery_state: within(row.recovery_state, NAME_BYTES_MAX),
  platform_send_started_at_ms: row.platform_send_started_at,
  enqueued_at_ms: row.enqueued_at,
  failed_at_ms: row.failed_at,
});

// One field over its limit would have the supervisor refuse all rows: such a one is not known.
const within = (value, bytes) =>
  typeof value === "string" && Buffer.byteLength(value) <= bytes ? value : null;

function main(stateDir) {
  process.removeAllListeners("warning"); // older Nodes say that their sqlite is experimental
  const found = stateDir ? readQueue(stateDir) : { error: "usage: native-queue.js STATE_DIR" };
  process.stdout.write(`${JSON.stringify({ entries: null, ...found })}\n`);
  process.exitCode = found?.error === undefined ? 0 : 1;
}

function isScript() {
  try {
    return realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url));
  } catch {
    return false;
  }
}

if (isScript()) main(process.argv[2]);
