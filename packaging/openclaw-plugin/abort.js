// Ends a run from inside the gateway.
//
// The only way that works on both known gateway lines without another permission is the public
// module `openclaw/plugin-sdk/agent-harness`. It is resolved from the gateway's own entry point,
// since this folder has no node_modules, and must be the very module instance the gateway runs.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { realpathSync } from "node:fs";

let loading = null;

/** Aborts the running turn of a session; resolves to whether there was one to abort. */
export async function abortRun(sessionId) {
  if (!sessionId) return false;
  loading ??= load();
  const abort = await loading;
  return abort ? abort(sessionId) === true : false;
}

async function load() {
  try {
    const entry = realpathSync(process.argv[1]);
    const file = createRequire(entry).resolve("openclaw/plugin-sdk/agent-harness");
    const { abortAgentHarnessRun } = await import(pathToFileURL(file).href);
    return typeof abortAgentHarnessRun === "function" ? abortAgentHarnessRun : null;
  } catch {
    return null;
  }
}
