//! What the text of a channel's error tells: the gateway passes it on and says nothing more.

/// Parts of an error text that no retry will change, in lower case. They follow the gateway's own
/// list, which it does not tell over the wire.
const PERMANENT_TEXTS: [&str; 10] = [
    "no conversation reference found",
    "chat not found",
    "chat_id is empty",
    "user not found",
    "bot was blocked by the user",
    "bot was kicked",
    "user is deactivated",
    "recipient is not a valid",
    "outbound not configured for channel",
    "ambiguous discord recipient",
];

/// Whether the channel itself answered, and so did not take the message: its HTTP status stands in
/// the text, as in `(500: Internal Server Error)`. Without one nobody knows: `Network request for
/// 'sendMessage' failed!` comes as well when the channel took the message and hung up.
pub fn channel_answered(text: &str) -> bool {
    text.split('(').skip(1).any(|part| {
        let (status, rest) = part.as_bytes().split_at_checked(3).unwrap_or_default();
        status.len() == 3 && status.iter().all(u8::is_ascii_digit) && rest.starts_with(b": ")
    })
}

/// Whether no retry will change the error.
pub fn is_permanent(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    PERMANENT_TEXTS.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_texts() {
        for (text, answered, permanent) in [
            ("Call to 'sendMessage' failed! (500: Internal Server Error)", true, false),
            ("Call to 'sendMessage' failed! (401: Unauthorized)", true, false),
            (
                "Call to 'sendMessage' failed! (403: Forbidden: bot was blocked by the user)",
                true,
                true,
            ),
            ("Call failed! (429: Too Many Requests: retry after 1) (UNAVAILABLE)", true, false),
            ("Network request for 'sendMessage' failed!", false, false),
            ("(50", false, false),
            ("(5000: x) (500) (a00: x) (\u{fc}: x)", false, false),
            ("400: Bad Request: Chat not found", false, true),
            ("", false, false),
        ] {
            assert_eq!(
                (channel_answered(text), is_permanent(text)),
                (answered, permanent),
                "{text}"
            );
        }
    }
}
