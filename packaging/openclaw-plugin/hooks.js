// The hooks: what is reported, and what the supervisor's answers do to a turn.
//
// No function here decides about a session or words a message; that is the supervisor's. Every
// handler is registered through guard(), so that a fault of ours costs a report and not a turn.

import { createHash, randomUUID } from "node:crypto";

import { abortRun } from "./abort.js";
import {
  cut, isCommand, isGenuine, isOwnRun, isRecoveryNotice, isRecoveryPrompt, routeOf,
} from "./people.js";
import { signals } from "./state.js";
import { text } from "./sessions.js";
import {
  argumentFields, awaitsApproval, backgroundEnds, endsInPrompt, isAborted, outcomeFields,
} from "./tools.js";

const FIRST = 1000;
const LAST = -1000; // before_tool_call: whatever another plugin blocks is no intent
const ERROR_CHARS_MAX = 300;
const WORKSPACE_CHARS_MAX = 1000;
const NOTICE_WINDOW_MS = 300_000; // how long after a claim the native notice may still come

// Inherited timeouts differ (none on 2026.5.5, 15 s and fail closed on 2026.9.6): state our own.
const HOOK_TIMEOUT_MS = 15_000;

export function registerHooks(api, state) {
  const on = (name, handler, opts = {}) =>
    api.on(name, guard(state, handler), { timeoutMs: HOOK_TIMEOUT_MS, ...opts });

  on("gateway_start", (event, ctx) => gatewayStart(state, event, ctx));
  on("gateway_stop", (event) => gatewayStop(state, event));
  on("message_received", (event, ctx) => messageReceived(state, event, ctx));
  on("before_agent_reply", (event, ctx) => beforeAgentReply(state, event, ctx), { priority: FIRST });
  on("agent_turn_prepare", (event, ctx) => turnPrepare(state, event, ctx));
  on("agent_end", (event, ctx) => turnEnd(state, event, ctx));
  on("before_tool_call", (event, ctx) => ownRunsFailClosed(state, event, ctx), { priority: LAST });
  on("after_tool_call", (event, ctx) => toolResult(state, event, ctx));
  // Merely to have this hook switches Telegram's live preview off (2026.9.6), so a gateway that has
  // nothing to recover, and hence nothing for us to suppress, goes without it.
  if (state.foundInterrupted || state.interrupted.length > 0) {
    on("message_sending", (event, ctx) => messageSending(state, event, ctx), { priority: FIRST });
  }
  // This one switches nothing on or off in either gateway: they only ask whether to fire it.
  on("message_sent", (event, ctx) => messageSent(state, event, ctx));
  on("session_end", (event, ctx) => sessionEnd(state, event, ctx));
}

/** Contains a handler's faults, and hands it each event once however often it is registered. */
function guard(state, handler) {
  return async (event, ctx) => {
    try {
      if (!state.first(event)) return undefined;
      return await handler(event ?? {}, ctx ?? {});
    } catch {
      return undefined;
    }
  };
}

async function gatewayStart(state, event, ctx) {
  state.gatewayStarted();
  state.queue.started();
  ctx.abortSignal?.addEventListener?.("abort", () => (state.stopping = true), { once: true });
  const auth = ctx.config?.gateway?.auth ?? {};
  const result = await state.link.request("gateway_start", {
    incarnation: state.incarnation,
    port: event.port ?? ctx.port ?? null,
    // Only plain strings: a SecretRef is not ours to resolve.
    auth: {
      token: text(auth.token) ?? text(process.env.OPENCLAW_GATEWAY_TOKEN),
      password: text(auth.password) ?? text(process.env.OPENCLAW_GATEWAY_PASSWORD),
    },
    version: state.gatewayVersion,
    signals: signals(),
  });
  state.remember(result ?? {});
}

async function gatewayStop(state, event) {
  state.gatewayStopped();
  await state.link.request("gateway_stop", {
    incarnation: state.incarnation,
    reason: text(event.reason) ?? "gateway stopping",
  });
}

// Not awaited by the gateway. Everything up to the request is synchronous, so that the message is
// known, and its report on its way, before the turn it starts can ask anything.
async function messageReceived(state, event, ctx) {
  const session = state.sessions.learn({ sessionKey: event.sessionKey ?? ctx.sessionKey });
  if (session === null || !isGenuine(event, ctx)) return;
  const route = routeOf(event, ctx);
  const sender = text(event.senderId) ?? text(ctx.senderId);
  const message = { text: text(event.content), route, sender };
  if (isCommand(session.key, message.text)) {
    state.people.commanded(session.key, message);
    return;
  }
  state.people.heard(session.key, message);
  // Where a hold ends by an explicit word only, which word that was is the supervisor's to tell.
  if (state.policy.release === "any-message" && state.isHeld(session)) state.heard.add(session.key);
  state.link.report("user_message", {
    session,
    route,
    text: cut(event.content),
    message_id: text(event.messageId) ?? text(ctx.messageId),
    sender_id: sender,
  });
}

/** Claims the gateway's own recovery turn, which is about to run (2026.9.6), if so told. */
async function beforeAgentReply(state, event, ctx) {
  const session = state.sessions.learn(ctx);
  if (session === null || !isRecoveryPrompt(event.cleanedBody)) return undefined;
  if (state.welcomed && state.policy.native !== "ask") return undefined;
  // A person may quote the gateway. The context does not tell: it names the last sender here, too.
  if (state.people.carries(session.key, event.cleanedBody)) return undefined;
  const runId = text(ctx.runId);
  const known = runId === null ? undefined : state.claims.get(runId);
  const claim = known ?? claimRecovery(state, session, runId);
  if (runId !== null) state.claims.set(runId, claim);
  return await claim;
}

async function claimRecovery(state, session, runId) {
  const answer = await state.link.request("recovery_turn", { session, run_id: runId });
  if (answer?.claim !== true) return undefined;
  state.claimedAt = Date.now();
  const reply = text(answer.reply);
  // Without a reply the gateway takes the turn for one that chose silence ("NO_REPLY").
  return reply === null ? { handled: true } : { handled: true, reply: { text: reply } };
}

/** Suppresses "I'm continuing your interrupted request…" where the supervisor answers instead. */
async function messageSending(state, event, ctx) {
  if (!isRecoveryNotice(event.content)) return undefined;
  if (!state.welcomed || state.policy.native === "native") return undefined;
  const key = text(ctx.sessionKey);
  const ours = key === null
    // The notice names no session (2026.9.6): any interruption known to the supervisor is meant.
    ? state.interrupted.length > 0 || Date.now() - state.claimedAt < NOTICE_WINDOW_MS
    : state.isInterrupted({ key, id: null });
  return ours ? { cancel: true } : undefined;
}

// What the gateway says is the end of a delivery (2026.9.6), or of one try (2026.5.5).
function messageSent(state, event, ctx) {
  const success = event.success === true;
  state.link.tell("message_sent", {
    channel: text(ctx.channelId),
    to: text(event.to) ?? text(ctx.conversationId),
    account_id: text(ctx.accountId),
    session_key: text(event.sessionKey) ?? text(ctx.sessionKey),
    success,
    message_id: text(event.messageId) ?? text(ctx.messageId),
    error: success ? null : text(event.error)?.slice(0, ERROR_CHARS_MAX) ?? null,
    ...fingerprint(event.content),
  });
  if (!success) state.queue.changed();
}

/** Tells one text from another without telling it. */
function fingerprint(content) {
  const bytes = Buffer.from(typeof content === "string" ? content : "", "utf8");
  return {
    text_sha256: createHash("sha256").update(bytes).digest("hex"),
    text_bytes: bytes.length,
  };
}

/** Reports the start of a turn, once a run: a retried attempt gets the same text again. */
async function turnPrepare(state, event, ctx) {
  const session = state.sessions.learn(ctx);
  if (session === null) return undefined;
  const runId = state.runs.start(session, text(ctx.runId), event.prompt);
  const turn = state.turns.get(runId) ?? turnStart(state, session, runId, event, ctx);
  state.turns.set(runId, turn);
  const prepend = await turn;
  if (prepend === null) return undefined;
  state.told.set(runId, true);
  return { prependContext: prepend };
}

async function turnStart(state, session, runId, event, ctx) {
  const { origin, message } = state.people.originOf(session, event.prompt, ctx);
  if (origin !== "user") {
    const known = [...state.backgrounds].filter(([, key]) => key === session.key).map(([id]) => id);
    backgroundsEnded(state, session, endsInPrompt(event.prompt, known));
  }
  try {
    const answer = await state.link.request("turn_start", {
      session,
      run_id: runId,
      origin,
      trigger: text(ctx.trigger),
      text: cut(message?.text ?? event.prompt),
      route: message?.route ?? null,
      workspace: text(ctx.workspaceDir)?.slice(0, WORKSPACE_CHARS_MAX) ?? null,
    });
    return text(answer?.prepend);
  } catch {
    return null;
  }
}

async function turnEnd(state, event, ctx) {
  state.queue.changed(); // its answer may be there
  const session = state.sessions.learn(ctx);
  if (session === null) return;
  const runId = state.runs.end(session, text(event.runId) ?? text(ctx.runId));
  if (runId === null) return;
  const success = event.success === true;
  state.link.report("turn_end", {
    session,
    run_id: runId,
    success,
    answered: success && hasAnswer(event.messages),
    told: state.told.has(runId),
  });
  for (const [call, { run_id: run }] of state.calls) if (run === runId) state.calls.delete(call);
}

/** Whether the model's last word is a text, and not a tool call or nothing. */
function hasAnswer(messages) {
  const last = Array.isArray(messages) ? messages.at(-1) : null;
  if (last?.role !== "assistant") return false;
  if (typeof last.content === "string") return last.content.trim().length > 0;
  return Array.isArray(last.content) && last.content.some((part) =>
    part?.type === "text" && typeof part.text === "string" && part.text.trim().length > 0);
}

/** A fault of ours costs a report elsewhere; on a person's permit it costs the call. */
async function ownRunsFailClosed(state, event, ctx) {
  try {
    return await toolIntent(state, event, ctx);
  } catch (error) {
    if (isOwnRun(event.runId ?? ctx.runId)) return blocked(null);
    throw error;
  }
}

async function toolIntent(state, event, ctx) {
  // A client of the gateway's own invoke interface, and no turn: its end is never reported, and a
  // person or a program asked for it in so many words.
  if ((text(event.runId) ?? text(ctx.runId) ?? text(ctx.sessionId)) === null) return undefined;
  const session = state.sessions.ofTool({ ...ctx, runId: text(event.runId) ?? ctx.runId });
  if (session === null) return undefined;
  const call = callOf(state, session, event, ctx);
  if (call.tool_call_id === null) {
    call.tool_call_id = `call-${randomUUID()}`;
    state.unnamed.set(call.tool_call_id, callKey(call));
  }
  state.calls.set(callKey(call), call);
  let answer;
  try {
    answer = await state.link.request("tool_intent", { ...call, ...argumentFields(event.params) });
  } catch {
    return unanswered(state, call);
  }
  if (answer?.allow !== false) return pinned(answer, event.params);
  state.calls.delete(callKey(call));
  if (answer.end_turn === true) endTurn(session);
  return blocked(answer.reason);
}

// The call that a person asked for with /resume runs with the recorded arguments and no others. The
// gateway lays what a hook returns over the model's own (both versions): a key of the model's that
// was not recorded is taken away, too. Returned even where they are the same, since the last hook
// that returns any has the word, and this is the last.
function pinned(answer, given) {
  const { arguments: recorded } = answer ?? {};
  if (recorded === null || recorded === undefined) return undefined;
  const others = Object.keys(given ?? {}).map((key) => [key, undefined]);
  return { params: { ...Object.fromEntries(others), ...recorded } };
}

/** The supervisor does not answer: what is held stays held, else the policy decides. */
function unanswered(state, call) {
  // In a turn that a person's /resume started nothing runs without the supervisor's word: it may have
  // spent the permit, or this may be another call than the permitted one.
  const held = state.isHeld(call.session) || isOwnRun(call.run_id);
  if (!held && state.policy.ack !== "require") return undefined;
  state.calls.delete(callKey(call));
  // The intent may have arrived, or is queued: without this the call would stay open there.
  state.link.report("tool_result", { ...call, outcome: "blocked", background: null });
  return blocked(null);
}

// An empty reason makes the gateway use its own words ("Tool call blocked by plugin hook").
const blocked = (reason) => ({ block: true, blockReason: text(reason) ?? undefined });

// After this hook has answered, so that the blocked call gets its result before the run ends.
function endTurn(session) {
  const timer = setTimeout(() => abortRun(session).catch(() => {}), 0);
  timer.unref?.();
}

async function toolResult(state, event, ctx) {
  const session = state.sessions.ofTool({ ...ctx, runId: text(event.runId) ?? ctx.runId });
  if (session === null) return;
  const call = callOf(state, session, event, ctx);
  call.tool_call_id ??= state.takeUnnamed(call);
  state.calls.delete(callKey(call));
  // Cut off by the stop of the gateway: whether it had its effect is not known, so say nothing.
  if (state.stopping && isAborted(event)) return;
  // It has not run, and whether it will is not known: the gateway asks somebody.
  if (awaitsApproval(event)) return;
  const result = outcomeFields(event);
  if (result.background?.id) state.backgrounds.set(result.background.id, session.key);
  // Without a name and an open call: one that was blocked, which the supervisor knows already.
  if (call.tool_call_id !== null) state.link.report("tool_result", { ...call, ...result });
  backgroundsEnded(state, session, backgroundEnds(event));
}

function backgroundsEnded(state, session, ends) {
  for (const end of ends) {
    state.backgrounds.delete(end.background_id);
    state.link.report("background_end", { session, ...end });
  }
}

// A person's /new, a daily or idle reset, a compaction: what it means is the supervisor's to tell.
async function sessionEnd(state, event, ctx) {
  const session = state.sessions.learn({
    sessionKey: event.sessionKey ?? ctx.sessionKey,
    sessionId: event.sessionId ?? ctx.sessionId,
    agentId: ctx.agentId,
  });
  if (session === null) return;
  state.link.report("session_end", {
    session,
    reason: text(event.reason),
    next_session_id: text(event.nextSessionId),
  });
}

const callOf = (state, session, event, ctx) => ({
  session,
  run_id: state.runs.of(session, text(event.runId) ?? text(ctx.runId)),
  tool_call_id: text(event.toolCallId) ?? text(ctx.toolCallId),
  name: text(event.toolName) ?? "tool",
});

const callKey = ({ run_id: run, tool_call_id: call }) => `${run}\n${call}`;
