//! File names of session keys: any bytes in, a plain name out, never the same for two keys.

use crate::core::canonical::sha256_hex;

/// Longest encoded key that is used whole, in bytes.
const ENCODED_BYTES_MAX: usize = 200;
/// How much of a longer one is kept, in bytes.
const ENCODED_BYTES_KEPT: usize = 150;
/// Hexadecimal digits of the hash that stands for the rest.
const HASH_DIGITS: usize = 32;

/// The file name of a session's checkpoint, `.json` included (design §6).
///
/// Every byte outside `[A-Za-z0-9._-]` is percent-encoded, a leading dot too; a long name is cut and
/// ends in `~` and a hash of the whole key. The empty key is `%`, which no other key encodes to.
#[must_use]
pub fn file_name(session_key: &str) -> String {
    let mut name = encode(session_key);
    if name.is_empty() {
        name.push('%');
    }
    if name.len() > ENCODED_BYTES_MAX {
        name.truncate(ENCODED_BYTES_KEPT);
        name.push('~');
        name.push_str(&sha256_hex(session_key.as_bytes())[..HASH_DIGITS]);
    }
    name.push_str(".json");
    name
}

/// The `n`-th alternative for a key whose own name belongs to somebody else.
#[must_use]
pub fn alternative(session_key: &str, n: u32) -> String {
    let hash = sha256_hex(session_key.as_bytes());
    let mut name = encode(session_key);
    name.truncate(ENCODED_BYTES_KEPT);
    format!("{name}~{}~{n}.json", &hash[..HASH_DIGITS])
}

fn encode(session_key: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(session_key.len());
    for (index, byte) in session_key.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if plain && !(index == 0 && byte == b'.') {
            name.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_the_promised_ones() {
        for (key, name) in [
            ("agent:main:main", "agent%3Amain%3Amain.json"),
            ("", "%.json"),
            (".", "%2E.json"),
            ("..", "%2E..json"),
            (".hidden", "%2Ehidden.json"),
            ("a/../b", "a%2F..%2Fb.json"),
            ("ü\0\n", "%C3%BC%00%0A.json"),
            ("%41", "%2541.json"),
        ] {
            assert_eq!(file_name(key), name, "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn two_keys_never_share_a_name(a in ".{0,300}", b in ".{0,300}") {
            prop_assume!(a != b);
            prop_assert_ne!(file_name(&a), file_name(&b));
        }

        #[test]
        fn a_name_is_plain_and_short(key in "\\PC{0,400}|[\\x00-\\x7f]{0,400}") {
            for name in [file_name(&key), alternative(&key, u32::MAX)] {
                prop_assert!(name.len() <= 210, "{}", name.len());
                prop_assert!(!name.starts_with('.'));
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%~".contains(&b)));
            }
        }
    }
}
