//! Every bound of tideover in one place, each with its reason.

/// Longest line on the control socket, newline included: a tool call's arguments fit, a flood does not.
pub const CONTROL_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Largest checkpoint file that is read: above the largest that can be written, which is every call of a session
/// with arguments as long as they may be. Larger ones are set aside unread.
pub const CHECKPOINT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Largest serialized arguments of one tool call that are stored; longer ones are omitted by hash.
pub const ARGUMENTS_BYTES_MAX: usize = 512 * 1024;
/// Deepest arguments of one tool call that are stored: with the levels of the record and of an answer around them
/// they stay below the 128 that a JSON reader takes.
pub const ARGUMENTS_DEPTH_MAX: usize = 64;
/// Longest task text kept, in characters.
pub const TASK_CHARS_MAX: usize = 4_000;
/// Longest `<tool_call>` inside the interruption line, in characters (design §9).
pub const TOOL_CALL_CHARS_MAX: usize = 500;
/// Longest task excerpt inside a notice to the user, in characters.
pub const NOTICE_TASK_CHARS_MAX: usize = 200;
/// Longest arguments that the words of a resumed turn repeat, as JSON, in bytes; longer ones stand in the transcript.
pub const PROMPT_ARGUMENTS_BYTES_MAX: usize = 16 * 1024;
/// Most sessions that `/resume list` names; the rest are counted.
pub const RESUME_LIST_MAX: usize = 10;
/// Longest session key accepted on the socket, in bytes.
pub const SESSION_KEY_BYTES_MAX: usize = 4_096;
/// Longest identifier (run id, tool call id, tool name) accepted on the socket, in bytes.
pub const IDENTIFIER_BYTES_MAX: usize = 512;
/// Most calls of one session that may be open side by side before the oldest is forgotten.
pub const OPEN_CALLS_MAX: usize = 32;
/// Most sessions named in one notice; the rest are counted.
pub const NOTICE_SESSIONS_MAX: usize = 8;
/// Blocked calls after which a turn that insists is brought to an end.
pub const BLOCKED_CALLS_PER_RUN_MAX: u32 = 3;
/// Sessions kept in memory. Beyond it new sessions are not journaled, and tideover says so.
pub const SESSIONS_MAX: usize = 100_000;
/// Connections served at once on the control socket.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Tries of one notice before it is failed. Its age is the real bound; this one only ends a fast crash loop.
pub const NOTICE_TRIES_MAX: u32 = 1_000;
/// How long a connection may take to greet, in milliseconds: a crowd that never does must not keep others out.
pub const CONTROL_HELLO_MS_MAX: u64 = 2_000;
/// Age at which an undelivered notice is failed, in milliseconds (24 h).
pub const NOTICE_AGE_MS_MAX: i64 = 24 * 60 * 60 * 1_000;
/// How long a settled notice is kept, in milliseconds (30 days): longer than any checkpoint may ask for it again.
pub const NOTICE_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

const _: () = {
    let calls = OPEN_CALLS_MAX as u64 + 2;
    assert!(calls * ARGUMENTS_BYTES_MAX as u64 + 8 * 1024 * 1024 <= CHECKPOINT_BYTES_MAX);
};
