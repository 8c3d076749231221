//! Asking about and stopping one session.

use std::time::Duration;

use serde_json::{Value, json};

use crate::core::addressee::Described;
use crate::core::checkpoint::Route;

use super::client::Client;
use super::error::RpcError;

/// What `sessions.abort` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aborted {
    /// This run was stopped; the gateway may not tell which.
    Run(Option<String>),
    /// Nothing was running.
    NothingRan,
}

impl Client {
    /// What the gateway knows of session `key`: no route when the session is unknown or has none (a session of
    /// the gateway's own web page, say), no parent when none started it.
    pub async fn describe_session(
        &mut self,
        key: &str,
        timeout: Duration,
    ) -> Result<Described, RpcError> {
        let answer = self.call("sessions.describe", &json!({ "key": key }), timeout).await?;
        let session = answer.get("session");
        Ok(Described { route: session.and_then(route), parent: session.and_then(parent) })
    }

    /// The model of session `key`, as `provider/model`; `None` where the gateway names none.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn session_model(
        &mut self,
        key: &str,
        timeout: Duration,
    ) -> Result<Option<String>, RpcError> {
        let answer = self.call("sessions.describe", &json!({ "key": key }), timeout).await?;
        let text = |name: &str| answer.get("session")?.get(name)?.as_str();
        Ok(text("model").map(|model| match text("modelProvider") {
            Some(provider) => format!("{provider}/{model}"),
            None => model.to_owned(),
        }))
    }

    /// Stops what runs in session `key`: run `run_id`, or whatever runs where none is named.
    ///
    /// Measured on 2026.5.5 and 2026.9.6: both offer `sessions.abort` and answer a session where
    /// nothing runs with `no-active-run`; a `chat.send` run is stopped by its session's key alone.
    /// A turn that came in through a channel was not tried; 2026.5.5's code looks only at runs of
    /// `chat.send` and `agent`.
    pub async fn abort_session(
        &mut self,
        key: &str,
        run_id: Option<&str>,
        timeout: Duration,
    ) -> Result<Aborted, RpcError> {
        let mut params = json!({ "key": key });
        if let (Some(run_id), Some(params)) = (run_id, params.as_object_mut()) {
            params.insert("runId".to_owned(), run_id.into());
        }
        let answer = self.call("sessions.abort", &params, timeout).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        Ok(match (text("status"), text("abortedRunId")) {
            (Some("no-active-run"), _) => Aborted::NothingRan,
            (_, run) => Aborted::Run(run.map(str::to_owned)),
        })
    }
}

/// Reads who started a session.
fn parent(session: &Value) -> Option<String> {
    let text = |name: &str| session.get(name)?.as_str().filter(|key| !key.is_empty());
    text("spawnedBy").or_else(|| text("parentSessionKey")).map(str::to_owned)
}

/// Reads `deliveryContext` of a session row.
fn route(session: &Value) -> Option<Route> {
    let context = session.get("deliveryContext")?;
    // A thread is a number on some channels and a text on others; `send` takes text.
    let text = |name: &str| match context.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    };
    Some(Route {
        channel: text("channel")?,
        to: text("to")?,
        account_id: text("accountId"),
        thread_id: text("threadId"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (row, want) in [
            (json!({"spawnedBy": "agent:main:main"}), Some("agent:main:main")),
            (json!({"spawnedBy": "a", "parentSessionKey": "b"}), Some("a")),
            (json!({"spawnedBy": null, "parentSessionKey": "b"}), Some("b")),
            (json!({"spawnedBy": "", "parentSessionKey": 7}), None),
            (json!(null), None),
        ] {
            assert_eq!(parent(&row).as_deref(), want, "{row}");
        }
    }

    #[test]
    fn routes() {
        let row = json!({"deliveryContext":
            {"channel": "telegram", "to": "telegram:1", "accountId": "default", "threadId": 7}});
        let want = Route {
            channel: "telegram".into(),
            to: "telegram:1".into(),
            account_id: Some("default".into()),
            thread_id: Some("7".into()),
        };
        assert_eq!(route(&row), Some(want));
        let none = [json!(null), json!({}), json!({"deliveryContext": {"channel": "webchat"}})];
        for row in none {
            assert_eq!(route(&row), None, "{row}");
        }
    }
}
