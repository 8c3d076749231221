//! One spelling for a JSON value, and its SHA-256: the proof that two calls have identical parameters.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The value as compact JSON with the keys of every object sorted.
///
/// Two values that are equal as JSON have the same canonical text, whatever their key order was.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

/// Lower-case hexadecimal SHA-256 of [`canonical_json`].
#[must_use]
pub fn arguments_sha256(value: &Value) -> String {
    sha256_hex(canonical_json(value).as_bytes())
}

/// Lower-case hexadecimal SHA-256 of some bytes.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                if let Some(item) = map.get(key) {
                    write_canonical(item, out);
                }
            }
            out.push('}');
        }
    }
}

/// Digits of the hash that stands for a session: enough to tell sessions apart.
const HASH_DIGITS: usize = 16;

/// What stands for a session in the log: its key may hold an address.
#[must_use]
pub fn session_hash(key: &str) -> String {
    sha256_hex(key.as_bytes())[..HASH_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_does_not_matter_and_values_do() {
        let a = json!({"b": 1, "a": {"y": [1, {"k": null}], "x": "ü\n"}});
        let b = json!({"a": {"x": "ü\n", "y": [1, {"k": null}]}, "b": 1});
        assert_eq!(canonical_json(&a), r#"{"a":{"x":"ü\n","y":[1,{"k":null}]},"b":1}"#);
        assert_eq!(arguments_sha256(&a), arguments_sha256(&b));
        assert_ne!(arguments_sha256(&a), arguments_sha256(&json!({"b": 2})));
    }

    #[test]
    fn sha256_is_the_known_one() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
