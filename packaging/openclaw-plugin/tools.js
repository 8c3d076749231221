// What the supervisor is told of a tool call and of its result.

import { createHash } from "node:crypto";

const ARGUMENTS_BYTES_MAX = 524_288;
const ARGUMENTS_DEPTH_MAX = 64; // the supervisor's parser gives up near 125 and drops the connection

/** The fields `arguments` (and `arguments_omitted`) of a tool_intent. */
export function argumentFields(params) {
  let json;
  try {
    json = JSON.stringify(params ?? {}) ?? "{}";
  } catch {
    return { arguments: null, arguments_omitted: { bytes: 0, sha256: "" } }; // no JSON: cyclic
  }
  const bytes = Buffer.byteLength(json);
  if (bytes <= ARGUMENTS_BYTES_MAX && depthOf(json) <= ARGUMENTS_DEPTH_MAX) return { arguments: params ?? {} };
  const sha256 = createHash("sha256").update(json).digest("hex");
  return { arguments: null, arguments_omitted: { bytes, sha256 } };
}

// Of the JSON and not of the value, which may hold what JSON does not. No recursion: it is deep.
function depthOf(json) {
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let at = 0; at < json.length; at += 1) {
    const char = json[at];
    if (quoted && char === "\\") at += 1;
    else if (char === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (char === "{" || char === "[") deepest = Math.max(deepest, (depth += 1));
    else if (char === "}" || char === "]") depth -= 1;
  }
  return deepest;
}

/** The fields `outcome` and `background` of a tool_result. */
export function outcomeFields(event) {
  const details = event?.result?.details;
  const status = details?.status;
  if (status === "running" && event.toolName === "exec") {
    const pid = Number.isInteger(details.pid) ? details.pid : null;
    const id = typeof details.sessionId === "string" ? details.sessionId : null;
    return { outcome: "background", background: { pid, id } };
  }
  if (status === "blocked" || isDenied(event, details)) return { outcome: "blocked", background: null };
  const failed = Boolean(event?.error) || event?.result?.isError === true
    || status === "error" || status === "failed" || isBadExit(details?.exitCode);
  return { outcome: failed ? "error" : "ok", background: null };
}

// An approval that was denied, ran out of time or could not be asked for: the tool did not run.
const DENIED = /^(denied by user|approval timed out|plugin approval unavailable)/i;

function isDenied(event, details) {
  if (details?.status === "approval-unavailable") return true;
  return [event?.error, details?.error].some((said) => typeof said === "string" && DENIED.test(said));
}

/** Whether a call waits for an approval: its result will not come by this hook. */
export const awaitsApproval = (event) => event?.result?.details?.status === "approval-pending";

/** Whether a result only says that the call was cut off: then its outcome is not known. */
export function isAborted(event) {
  if (event?.result?.details?.status === "aborted") return true;
  return typeof event?.error === "string" && /\babort/i.test(event.error);
}

/**
 * The ends of background commands which a `process` call shows: polled or logged to its end,
 * killed, or listed as finished. Fields of background_end, none when all of them still run.
 */
export function backgroundEnds(event) {
  if (event?.toolName !== "process" || event.error) return [];
  const { action, sessionId } = event.params ?? {};
  const details = event.result?.details;
  if (action === "list") return (details?.sessions ?? []).flatMap(ended);
  if (typeof sessionId !== "string" || sessionId.length === 0) return [];
  if (action === "poll" || action === "log") {
    return details?.sessionId === sessionId ? ended(details) : []; // a failed lookup names none
  }
  const killed = (action === "kill" || action === "remove") && typeof details?.name === "string";
  return killed ? [{ background_id: sessionId, outcome: "error" }] : [];
}

// When a background command ends the gateway tells the model: "Exec completed (crisp-sl, code 0)".
const EXIT_LINE = /\bExec (completed|failed|finished) \(([a-z0-9-]{1,8}), (code|signal) ([\w-]+)\)/g;
const EXIT_ID_CHARS = 8;

/** The ends which a prompt tells of commands that we know to run in the background. */
export function endsInPrompt(prompt, knownIds) {
  if (typeof prompt !== "string" || knownIds.length === 0) return [];
  return [...prompt.matchAll(EXIT_LINE)].flatMap(([, verb, short, by, value]) => {
    const ids = knownIds.filter((id) => id.slice(0, EXIT_ID_CHARS) === short);
    if (ids.length !== 1) return []; // cut off, and so not always telling
    const ok = verb !== "failed" && by === "code" && value === "0";
    return [{ background_id: ids[0], outcome: ok ? "ok" : "error" }];
  });
}

function ended({ sessionId, status, exitCode }) {
  if (typeof sessionId !== "string") return [];
  if (status !== "completed" && status !== "failed") return []; // still running
  const ok = status === "completed" && !isBadExit(exitCode);
  return [{ background_id: sessionId, outcome: ok ? "ok" : "error" }];
}

const isBadExit = (exitCode) => Number.isInteger(exitCode) && exitCode !== 0;
