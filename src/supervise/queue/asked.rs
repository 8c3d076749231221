//! What a command line asks of the running supervisor about the queue and the notices.

use serde_json::{Value, json};
use tokio::task::{spawn_blocking, spawn_local};

use crate::control::protocol::{ErrorCode, reply};
use crate::control::server::Peer;
use crate::core::checkpoint::Checkpoint;
use crate::store::Layout;

use super::super::clock;
use super::super::engine::{Engine, Internal};
use super::super::reports::Response;
use super::change::{ChangeError, Changed, drop_entry, retry_entry};
use super::list::{Surroundings, list};

impl Engine {
    /// The list of what waits; read off the loop.
    pub(in super::super) fn list_queue(
        &self,
        peer: &Peer,
        id: Option<&str>,
        only: Option<String>,
    ) -> Response {
        let (layout, around) = (self.layout.clone(), Surroundings { only, ..self.surroundings() });
        self.answer_later(peer, id, move || {
            let mut document = serde_json::to_value(list(&layout, &around)).unwrap_or_default();
            document["schema"] = json!("tideover.queue/1");
            document["running"] = json!(true);
            Ok(document)
        })
    }

    fn surroundings(&self) -> Surroundings {
        let keys_of = |wanted: fn(&Checkpoint) -> bool| {
            let records = self.ledger.all().filter(|record| wanted(record));
            records.map(|record| record.session_key.clone()).collect()
        };
        Surroundings {
            now: clock::now(),
            gateway_since: self.queue.since(),
            retries: self.settings.queue.retry,
            held: keys_of(Checkpoint::is_held),
            busy: keys_of(|record| record.turn.is_some()),
            outbox: self.outbox.clone(),
            native: Some(self.queue.native.clone()),
            given_up: self.queue.given_up.clone(),
            only: None,
        }
    }

    /// Makes an entry due now.
    pub(in super::super) fn retry_queued(
        &self,
        peer: &Peer,
        request: Option<&str>,
        id: &str,
    ) -> Response {
        let id = id.to_owned();
        self.change_queue(peer, request, move |layout| retry_entry(layout, &id, clock::now()))
    }

    /// Takes an entry out.
    pub(in super::super) fn drop_queued(
        &self,
        peer: &Peer,
        request: Option<&str>,
        id: &str,
    ) -> Response {
        let id = id.to_owned();
        self.change_queue(peer, request, move |layout| drop_entry(layout, &id))
    }

    fn change_queue(
        &self,
        peer: &Peer,
        request: Option<&str>,
        change: impl FnOnce(&Layout) -> Result<Changed, ChangeError> + Send + 'static,
    ) -> Response {
        let layout = self.layout.clone();
        self.answer_later(peer, request, move || {
            let changed = change(&layout).map_err(|error| (code_of(&error), error.to_string()))?;
            Ok(serde_json::to_value(changed).unwrap_or_default())
        })
    }

    /// Answers from a thread that may wait for the disk; the queue is looked at afterwards.
    fn answer_later(
        &self,
        peer: &Peer,
        id: Option<&str>,
        work: impl FnOnce() -> Result<Value, (ErrorCode, String)> + Send + 'static,
    ) -> Response {
        let (peer, id, to_loop) = (peer.clone(), id.map(str::to_owned), self.to_loop.clone());
        spawn_local(async move {
            let failed = (ErrorCode::NotDurable, "the queue could not be read".to_owned());
            match (spawn_blocking(work).await.unwrap_or(Err(failed)), id) {
                (Ok(answer), Some(id)) => peer.send(reply(&id, &answer)),
                (Err((code, message)), id) => peer.refuse(id.as_deref(), code, &message),
                (Ok(_), None) => {}
            }
            let _ = to_loop.send(Internal::QueueChanged).await;
        });
        Response::Later
    }
}

fn code_of(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::NotFound { .. } => ErrorCode::NotFound,
        ChangeError::Ambiguous { .. } => ErrorCode::BadField,
        ChangeError::Refused(_) => ErrorCode::Refused,
        ChangeError::Store(_) => ErrorCode::NotDurable,
    }
}
