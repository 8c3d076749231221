// tideover's companion in the OpenClaw gateway.
//
// Inert unless the tideover supervisor started this gateway (TIDEOVER_SOCKET). Reports turns, tool
// calls and messages over the control socket, waits for the supervisor's word before a tool runs,
// and does what it answers: see hooks.js. README.md names the permissions it needs.

import { registerHooks } from "./hooks.js";
import { registerResume } from "./resume.js";
import { stateOf } from "./state.js";

export default {
  id: "tideover",
  name: "tideover",
  description: "Reports turns and tool calls to the tideover supervisor and holds effects after "
    + "an interruption. Inert without it.",

  // Runs several times in a process, and in commands other than the gateway: it must not connect.
  register(api) {
    try {
      const state = stateOf();
      if (state === null || typeof api?.on !== "function") return;
      state.gatewayVersion = api.runtime?.version;
      registerHooks(api, state);
      registerResume(api, state);
    } catch {
      // A plugin that fails to register can keep the gateway from starting; this one cannot.
    }
  },
};
