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
const MATCHED_MS_MAX = 3_600_000; // one whose text is there may have queued behind a long turn
const TEXT_CHARS_MAX = 4000;

// "[Sun 2026-11-22 18:46 UTC] ", right before a person's words.
const STAMP = /(^|\n)\[[^\]\n]{1,60}\] $/;
const STAMP_CHARS_MAX = 64;
// Queued events stand before a person's words, too, each line marked so.
const EVENT_LINES = /^System(?: \(untrusted\))?: .*$/gm;
// What the gateway itself gives a turn to do: at its head, and the forms that come after others.
const OWN_HEAD = new RegExp(
  "^\\s*(\\[[^\\]\\n]{1,60}\\] )?(\\[System\\] |\\[Inter-session message\\]|\\[Subagent Context\\]|\\[cron:"
  + "|An async command |A scheduled reminder |A background task |A completed .{1,60} is ready for "
  + "|Read HEARTBEAT\\.md)",
);
const OWN_LINE = new RegExp(
  "^(\\[[^\\]\\n]{1,60}\\] )?(Exec (completed|failed|finished|denied|running) \\("
  + "|\\[Internal task completion event\\]|OpenClaw runtime context \\(internal\\):)",
  "m",
);
const OWN_SOURCES = new Set(["internal_system", "inter_session"]);
const OWN_TRIGGERS = new Set(["memory"]); // housekeeping before a person's turn, in its session
// A turn that the supervisor started takes up nobody's message; by its run the supervisor knows it.
const OWN_RUN = "tideover-";
// The only commands whose rest becomes a turn ("/new do this"); "/verbose on" ends with itself.
const CARRYING_COMMAND = /^\s*\/(?:new|reset)(?:@\w+)?[\s:]+(\S[^]*)$/i;

export const isRecoveryPrompt = (prompt) =>
  typeof prompt === "string" && RECOVERY_PROMPT.test(prompt);

/** Whether the gateway itself wrote this prompt, whatever words of others it contains. */
export function isOwnPrompt(prompt) {
  if (typeof prompt !== "string") return false;
  const said = prompt.replace(EVENT_LINES, "");
  return isRecoveryPrompt(said) || OWN_HEAD.test(said) || OWN_LINE.test(said);
}

/** Whether the supervisor started this run, on a person's word. */
export const isOwnRun = (runId) => (text(runId) ?? "").startsWith(OWN_RUN);

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

/** The same for a command. */
export function routeOfCommand(ctx) {
  const channel = text(ctx?.channel);
  const to = text(ctx?.to) ?? text(ctx?.from);
  if (channel === null || to === null) return null;
  const thread = ctx.messageThreadId ?? ctx.threadId;
  return {
    channel,
    to,
    account_id: text(ctx.accountId),
    thread_id: thread === undefined || thread === null ? null : String(thread),
  };
}

/** Whether others read along where a command was given. */
export const isGroup = (ctx) =>
  [ctx?.sessionKey, ctx?.from, ctx?.to].some((s) => /(^|:)(group|channel):/.test(s ?? ""));

export class People {
  #waiting = new BoundedMap(SESSIONS_MAX); // session key → [{ text, at, route }]
  #commands = []; // { key, rest, text, sender, route, at }: some carry a message on to a session

  /** Keeps a person's message until a turn takes it up. */
  heard(key, message) {
    const waiting = this.#waiting.get(key) ?? [];
    waiting.push({ ...message, at: Date.now() });
    this.#waiting.set(key, waiting.slice(-WAITING_MAX));
  }

  /** Keeps a command that carries a message on, perhaps to a session of another key. */
  commanded(key, message) {
    const rest = CARRYING_COMMAND.exec(message.text ?? "")?.[1];
    if (rest === undefined) return;
    const at = Date.now();
    this.#commands = this.#commands.filter((c) => at - c.at < UNMATCHED_MS_MAX).slice(1 - WAITING_MAX);
    this.#commands.push({ ...message, key, rest, at });
  }

  /** Forgets what was said up to a time: the gateway that would have taken it up is gone. */
  forget(untilMs) {
    for (const [key, waiting] of [...this.#waiting]) {
      const kept = waiting.filter(({ at }) => at > untilMs);
      if (kept.length > 0) this.#waiting.set(key, kept);
      else this.#waiting.delete(key);
    }
    this.#commands = this.#commands.filter(({ at }) => at > untilMs);
  }

  /**
   * What began a turn, and the message behind it. A person's messages are used up by the turn
   * that carries them (several, when the gateway collected them into one prompt).
   */
  originOf(session, prompt, ctx) {
    const { sourceTool, kind } = ctx?.inputProvenance ?? {};
    if (sourceTool === RECOVERY_TOOL) return { origin: "recovery", message: null };
    if (ctx?.trigger === "heartbeat" || ctx?.trigger === "cron") {
      return { origin: ctx.trigger, message: null };
    }
    const own = OWN_SOURCES.has(kind) || OWN_TRIGGERS.has(ctx?.trigger)
      || isOwnRun(ctx?.runId);
    const message = own ? null : this.#take(session.key, prompt, ctx);
    if (message) return { origin: "user", message };
    return { origin: isRecoveryPrompt(prompt) ? "recovery" : "system", message: null };
  }

  /** Whether this prompt carries a person's message that no turn has taken up yet. */
  carries(key, prompt) {
    return this.#carried(key, prompt).length > 0;
  }

  #take(key, prompt, ctx) {
    const waiting = this.#waiting.get(key) ?? [];
    const carried = this.#carried(key, prompt);
    if (carried.length > 0) {
      this.#waiting.set(key, waiting.filter((m) => !carried.includes(m)));
      return carried.at(-1);
    }
    if (isOwnPrompt(prompt)) return null;
    const command = this.#takeCommand(key, prompt, ctx);
    if (command) return command;
    // Directives are stripped from a prompt and a voice message becomes a transcript: a fresh
    // message counts even if its words are not there, but never for a prompt of the gateway's.
    const since = Date.now() - UNMATCHED_MS_MAX;
    const fresh = waiting.filter(({ at }) => at > since);
    this.#waiting.set(key, waiting.filter(({ at }) => at <= since));
    return fresh.at(-1) ?? null;
  }

  #carried(key, prompt) {
    const since = Date.now() - MATCHED_MS_MAX;
    const waiting = this.#waiting.get(key) ?? [];
    const carried = waiting.filter((m) => m.at > since && standsIn(m.text, prompt));
    // Output of a command may hold a line that somebody once said. Who quotes the gateway is heard.
    return isOwnPrompt(prompt) && !carried.some((m) => isOwnPrompt(m.text)) ? [] : carried;
  }

  #takeCommand(key, prompt, ctx) {
    const since = Date.now() - UNMATCHED_MS_MAX;
    const at = this.#commands.findIndex((command) =>
      command.at > since && standsIn(command.rest, prompt) && isSameConversation(command, key, ctx));
    return at < 0 ? null : this.#commands.splice(at, 1)[0];
  }
}

/** Whether a prompt has this text as whole lines, the first perhaps stamped; "on" is in no "only". */
function standsIn(said, prompt) {
  const whole = plain(said);
  const words = whole.slice(0, TEXT_CHARS_MAX);
  if (words.length === 0) return false;
  const body = plain(prompt);
  for (let at = body.indexOf(words); at >= 0; at = body.indexOf(words, at + 1)) {
    const before = body.slice(Math.max(0, at - STAMP_CHARS_MAX), at);
    const end = at + words.length;
    const begins = at === 0 || before.endsWith("\n") || STAMP.test(before);
    if (begins && (words !== whole || end === body.length || body[end] === "\n")) return true;
  }
  return false;
}

const plain = (value) =>
  typeof value === "string" ? value.replace(/[ \t\r]+$/gm, "").trim() : "";

/** Whether a turn answers the conversation which a command came from, as far as its hook tells. */
function isSameConversation({ key, sender, route }, turnKey, ctx) {
  const same = key === turnKey;
  const speaker = text(ctx?.senderId);
  if (speaker !== null && sender !== null && speaker !== sender) return false;
  const channel = text(ctx?.channel) ?? text(ctx?.messageProvider);
  if (route === null || channel === null) return same;
  if (channel !== route.channel) return false;
  const account = text(ctx.accountId);
  if (account !== null && route.account_id !== null && account !== route.account_id) return false;
  const chat = text(ctx.chatId) ?? text(ctx.channelId);
  // Without an address the gateway names the channel once more: then only the key can tell.
  return chat === null || chat === channel ? same : bare(chat, channel) === bare(route.to, channel);
}

// "telegram:4242" of a message, "slash:4242" of a native command and "4242" of a turn are one.
function bare(address, channel) {
  const local = address.startsWith(`${channel}:`) ? address.slice(channel.length + 1) : address;
  return local.replace(/^(slash|channel|group|direct|user|chat|dm|room):/, "").replace(/:topic:.*$/, "");
}
