// The chat command /resume: the person's word goes to the supervisor, its words go back.
//
// The gateway lets only those through who may command it. What runs, and whether anything does, is
// decided and made durable there; the turn is started there, too.

import { isGroup, routeOfCommand } from "./people.js";
import { text } from "./sessions.js";

// Facts are gathered, the permit is written and the gateway has taken the turn within this time.
const TIMEOUT_MS = 30_000;
const WORDS = new Map([
  ["", "ask"], ["yes", "yes"], ["done", "done"], ["skip", "skip"], ["list", "list"],
]);
const SAID = /^(yes(?= )|\S*)(?: +([0-9a-f]{1,16}))?$/;
const USAGE = "Say /resume for the facts, /resume yes to run the interrupted action again, "
  + "/resume done if it has happened, /resume skip to drop it, /resume list for all sessions.";

export function registerResume(api, state) {
  if (typeof api.registerCommand !== "function") return;
  api.registerCommand({
    name: "resume",
    description: "What was interrupted by a restart, and running it again",
    acceptsArgs: true,
    requireAuth: true,
    handler: async (ctx) => {
      try {
        return { text: await resume(state, ctx ?? {}) };
      } catch {
        return { text: "tideover could not look into this just now; nothing was run. Try again." };
      }
    },
  });
}

async function resume(state, ctx) {
  const [, word, code] = SAID.exec((text(ctx.args) ?? "").trim().toLowerCase()) ?? [];
  const choice = WORDS.get(word);
  if (choice === undefined) return USAGE;
  const session = state.sessions.learn({ sessionKey: ctx.sessionKey, sessionId: ctx.sessionId });
  try {
    const answer = await state.link.ask("resume_asked", {
      session, choice, code: code ?? null, route: routeOfCommand(ctx), group: isGroup(ctx),
    }, TIMEOUT_MS);
    return text(answer?.text) ?? "tideover has nothing to say about this.";
  } catch (error) {
    if (error?.code === "timeout" || error?.code === "cut") {
      return "tideover has not answered in time: whether anything was begun is not known. Send /resume to see.";
    }
    if (error?.code === "down" || error?.code === "refused") {
      return "tideover is not there just now, so nothing was run. Try again in a moment.";
    }
    return `Nothing was run: ${error?.message ?? "tideover refused"}.`;
  }
}
