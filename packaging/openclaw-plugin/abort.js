// Ends a turn from inside the gateway.
//
// No hook can do it: a blocked call only makes the model try again, and `chat.abort` and
// `sessions.abort` do not see a turn that came in through a channel (2026.5.5). So we press the
// button that the user's own /stop presses: the reply operation in the gateway's registry, which
// ends the run without a word to the user. Runs without one (`agent` calls, recovered turns) are
// aborted at their own handle. Both registries hang on global symbols in the gateways we know;
// every step is checked, and a gateway that has neither is asked through its public module.

import { createRequire } from "node:module";
import { realpathSync } from "node:fs";
import { pathToFileURL } from "node:url";

const REPLIES = Symbol.for("openclaw.replyRunRegistry");
const RUNS = Symbol.for("openclaw.embeddedRunState");

/** Ends the running turn of a session; resolves to whether there was one to end. */
export async function abortRun({ key, id }) {
  const replies = globalThis[REPLIES]?.activeRunsByKey;
  const runs = globalThis[RUNS]?.activeRuns;
  if (pressed(replies?.get?.(key), "abortByUser")) return true;
  if (id === null) return false;
  if (pressed(runs?.get?.(id), "abort")) return true;
  return replies || runs ? false : await abortThroughModule(id);
}

function pressed(target, method) {
  return typeof target?.[method] === "function" && target[method]() !== false;
}

// Last, since it loads half of the gateway anew: measured to block 2026.9.6 for 15 s. Resolved from
// the gateway's entry point, as it must be the module instance that the gateway itself runs.
async function abortThroughModule(id) {
  const entry = realpathSync(process.argv[1]);
  const file = createRequire(entry).resolve("openclaw/plugin-sdk/agent-harness");
  const { abortAgentHarnessRun } = await import(pathToFileURL(file).href);
  return abortAgentHarnessRun?.(id) === true;
}
