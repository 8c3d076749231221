//! Credentials that cannot slip into a log.

use std::fmt;

use serde_json::{Value, json};

/// A token or password. Its `Debug` form hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that puts it on the wire.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// How tideover proves itself to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `gateway.auth.token`
    Token(Secret),
    /// `gateway.auth.password`
    Password(Secret),
    /// A gateway whose `gateway.auth.mode` is `none`.
    None,
}

impl Credentials {
    /// The `auth` member of a connect request.
    pub(super) fn to_json(&self) -> Option<Value> {
        match self {
            Self::Token(secret) => Some(json!({ "token": secret.expose() })),
            Self::Password(secret) => Some(json!({ "password": secret.expose() })),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let shown = format!("{:?}", Credentials::Token(Secret::new("hunter2")));
        assert_eq!(shown, "Token([hidden])");
    }
}
