// Who speaks: a person, or the gateway itself.
//
// Only `message_received` proves a person, and not every one does: on 2026.5.5 and 2026.9.6 the
// continuation of a requested restart is dispatched like a message of the channel, without a
// sender. A turn is a person's when such a message stands behind it and has not been used up by
// an earlier turn; `agent` RPC calls, wakes and heartbeats have none.

import { BoundedMap, text } from "./sessions.js";

// 2026.5.5 puts "[Sun 2026-11-22 18:46 UTC] " in front, and lines of queued events before that.
const RECOVERY_PROMPT = /^(\[[^\]\n]{1,60}\] )?\[System\] Your previous turn was interrupted/m;
const RECOVERY_TOOL = "main_session_restart_recovery";
const RECOVERY_NOTICE = "I'm continuing your interrupted request";
const CONTINUATION_ID = "restart-sentinel:";
const WAITING_MAX = 32; // messages of one session which no turn has taken up yet
const SESSIONS_MAX = 2048;
const UNMATCHED_MS_MAX = 120_000; // how long a message whose text the prompt lacks still counts
const MATCH_CHARS = 160;
const TEXT_CHARS_MAX = 4000;

export const isRecoveryPrompt = (prompt) =>
  typeof prompt === "string" && RECOVERY_PROMPT.test(prompt);

export const isRecoveryNotice = (content) =>
  typeof content === "string" && content.trimStart().startsWith(RECOVERY_NOTICE);

export const cut = (value) =>
  typeof value === "string" ? value.slice(0, TEXT_CHARS_MAX) : null;

/** Whether a `message_received` event is a message of a person. */
export function isGenuine(event, ctx) {
  if (text(event?.senderId) === null && text(ctx?.senderId) === null) return false;
  return !(text(event?.messageId) ?? "").startsWith(CONTINUATION_ID);
}

/**
 * Whether a message is a command ("/status", "/new do this"): an order to the gateway, which says
 * nothing about an interrupted task. On 2026.5.5 native ones come under a session of their own
 * ("agent:main:telegram:slash:4242"), on 2026.9.6 under that of the conversation.
 */
export const isCommand = (key, content) =>
  /:slash:[^:]+$/.test(key) || /^\s*\/[a-z][\w-]*(@\w+)?(\s|:|$)/i.test(content ?? "");

/** Where an answer to this message would go, in the words of the gateway's `send` call. */
export function routeOf(event, ctx) {
  const meta = event?.metadata ?? {};
  const channel = text(meta.originatingChannel) ?? text(ctx?.channelId);
  // A web chat has no address: its "to" is the session itself, or missing (2026.5.5).
  if (channel === null || channel === "webchat") return null;
  const to = text(meta.originatingTo) ?? text(meta.to) ?? text(ctx?.conversationId);
  if (to === null) return null;
  const thread = event?.threadId ?? meta.threadId;
  return {
    channel,
    to,
    account_id: text(ctx?.accountId),
    thread_id: thread === undefined || thread === null ? null : String(thread),
  };
}

export class People {
  #waiting = new BoundedMap(SESSIONS_MAX); // session key → [{ text, at, route }]
  #commands = []; // of these, some carry a message on to a session ("/new do this")

  /** Keeps a person's message until a turn takes it up. */
  heard(key, message) {
    const waiting = this.#waiting.get(key) ?? [];
    waiting.push({ ...message, at: Date.now() });
    this.#waiting.set(key, waiting.slice(-WAITING_MAX));
  }

  /** Keeps a command, whose session we may not know yet. */
  commanded(message) {
    const now = Date.now();
    this.#commands = this.#commands.filter(({ at }) => now - at < UNMATCHED_MS_MAX).slice(-WAITING_MAX);
    this.#commands.push({ ...message, at: now });
  }

  /**
   * What began a turn, and the message behind it. A person's messages are used up by the turn
   * that carries them (several, when the gateway collected them into one prompt).
   */
  originOf(session, prompt, ctx) {
    const source = ctx?.inputProvenance?.sourceTool;
    if (source === RECOVERY_TOOL) return { origin: "recovery", message: null };
    if (ctx?.trigger === "heartbeat" || ctx?.trigger === "cron") {
      return { origin: ctx.trigger, message: null };
    }
    const message = ctx?.inputProvenance?.kind === "internal_system"
      ? null
      : this.#take(session.key, prompt) ?? this.#takeCommand(prompt);
    if (message) return { origin: "user", message };
    return { origin: isRecoveryPrompt(prompt) ? "recovery" : "system", message: null };
  }

  /** Whether this prompt carries a person's message that no turn has taken up yet. */
  carries(key, prompt) {
    return (this.#waiting.get(key) ?? []).some((message) => isIn(message, prompt));
  }

  #take(key, prompt) {
    const waiting = this.#waiting.get(key);
    if (!waiting?.length) return null;
    const said = typeof prompt === "string" ? prompt : "";
    const carried = waiting.filter((message) => isIn(message, said));
    if (carried.length > 0) {
      this.#waiting.set(key, waiting.filter((m) => !carried.includes(m)));
      return carried.at(-1);
    }
    // Directives are stripped from a prompt and a voice message becomes a transcript: a fresh
    // message counts even if its words are not there, but never for a prompt of the gateway's.
    if (isRecoveryPrompt(prompt)) return null;
    const fresh = waiting.filter(({ at }) => Date.now() - at < UNMATCHED_MS_MAX);
    this.#waiting.delete(key);
    return fresh.at(-1) ?? null;
  }

  #takeCommand(prompt) {
    const said = typeof prompt === "string" ? prompt : "";
    const at = this.#commands.findIndex(({ text: t }) => {
      const rest = (t ?? "").replace(/^\/\S+\s*/, "").trim().slice(0, MATCH_CHARS);
      return rest.length > 0 && said.includes(rest);
    });
    return at < 0 ? null : this.#commands.splice(at, 1)[0];
  }
}

function isIn(message, prompt) {
  const head = (message.text ?? "").trim().slice(0, MATCH_CHARS);
  return head.length > 0 && prompt.includes(head);
}
