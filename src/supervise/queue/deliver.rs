//! One entry that stayed behind: claimed, delivered through the gateway's own calls, and settled.

use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::core::queue::{AfterTry, Entry, Evidence, Queue, Tried, after_try};
use crate::gateway::queue_files::{Document, Transcripts};
use crate::gateway::rpc::{Client, SendOutcome, TurnOutcome};
use crate::store::{Layout, StoreError};

use super::super::clock;
use super::super::engine::GatewayLink;
use super::super::notices::options;
use super::apply::{self, Claim};
use super::copies;
use super::running::Delivered;
use super::shelf::Shelf;
use super::shelves::Shelves;
use super::start::evidence_of;

/// How long one try waits for the answer to `send`.
const SEND_TIMEOUT: Duration = Duration::from_secs(45);
/// How long one try waits for the end of a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Claims an entry, has the gateway deliver it, and carries out what follows.
pub(super) async fn deliver(link: GatewayLink, layout: Layout, claim: Claim) -> Delivered {
    let (queue, id) = (claim.queue, claim.id.clone());
    let claims = layout.clone();
    let claimed =
        blocking(move || apply::claim(&mut Shelves::new(&claims), &claim, clock::now())).await;
    let document = match claimed {
        Ok(Some(document)) => document,
        Ok(None) => return told(queue, id, Ok(None)),
        Err(error) => return told(queue, id, Err(error)),
    };
    match attempt(&link, &layout, document).await {
        Ok((document, tried)) => finish(layout, document, tried).await,
        Err(error) => told(queue, id, Err(error)),
    }
}

async fn attempt(
    link: &GatewayLink,
    layout: &Layout,
    document: Document,
) -> Result<(Document, Tried), StoreError> {
    let mut client = match Client::connect(&options(link)).await {
        Ok(client) => client,
        Err(error) => return Ok((document, Tried::NotTaken(error.to_string()))),
    };
    let of = layout.clone();
    let (document, happened) = blocking(move || {
        let mut document = document;
        // It may have happened since the look that found it due.
        let evidence = evidence_of(&mut Transcripts::open(of.state_dir()), &document);
        if evidence == Evidence::None {
            apply::sending(&mut Shelves::new(&of), &mut document)?;
        }
        Ok((document, evidence != Evidence::None))
    })
    .await?;
    let key = document.entry().mark.key.clone().unwrap_or_default();
    let tried = match (happened, document.send_request(&key), document.turn_request(&key)) {
        (true, _, _) => Tried::Done,
        (false, Some(request), _) => sent(client.send(&request, SEND_TIMEOUT).await),
        (false, None, Some(request)) => match client.run_turn(&request, TURN_TIMEOUT).await {
            TurnOutcome::Ran => Tried::Done,
            TurnOutcome::NotTaken { reason } => Tried::NotTaken(reason),
            TurnOutcome::Failed { reason } => Tried::Failed { reason, answered: true },
            TurnOutcome::NoAnswer { .. } => Tried::NoAnswer,
        },
        (false, None, None) => Tried::NotTaken("only the gateway itself can deliver it".to_owned()),
    };
    client.close(CLOSE_TIMEOUT).await;
    Ok((document, tried))
}

fn sent(outcome: SendOutcome) -> Tried {
    match outcome {
        SendOutcome::Delivered { .. } => Tried::Done,
        SendOutcome::Queued { reason, answered, .. } => Tried::Failed { reason, answered },
        SendOutcome::Refused { reason } | SendOutcome::Failed { retryable: false, reason, .. } => {
            Tried::Refused(reason)
        }
        SendOutcome::Failed { retryable: true, reason, .. } => Tried::NotTaken(reason),
        SendOutcome::Uncertain { .. } => Tried::NoAnswer,
    }
}

async fn finish(layout: Layout, mut document: Document, tried: Tried) -> Delivered {
    let entry = document.entry().clone();
    let (queue, id) = (entry.queue, entry.id.clone());
    let done = blocking(move || {
        let mut shelves = Shelves::new(&layout);
        let tried = looked_up(&layout, &document, tried);
        let then = after_try(document.entry(), tried);
        apply::after(&mut shelves, &mut document, &then, Shelf::Kept, clock::now())?;
        Ok((then, document.entry().clone()))
    })
    .await;
    match done {
        Ok((then, entry)) => {
            Delivered { queue, id, entry: Some(entry), then: Some(then), problem: None }
        }
        Err(error) => Delivered {
            queue,
            id,
            entry: Some(entry),
            then: None,
            problem: Some(error.to_string()),
        },
    }
}

/// A turn that was answered with an error may have run all the same: then its reply waits in the other queue, and
/// running it again would repeat its tools.
fn looked_up(layout: &Layout, document: &Document, tried: Tried) -> Tried {
    let failed = matches!(tried, Tried::Failed { .. } | Tried::Refused(_));
    if !failed || document.entry().queue != Queue::Session {
        return tried;
    }
    let mut transcripts = Transcripts::open(layout.state_dir());
    match evidence_of(&mut transcripts, document) {
        Evidence::None => tried,
        Evidence::Done | Evidence::Cut => Tried::Done,
    }
}

/// What is to be done with an entry that was left in hand, because no answer came.
pub(super) async fn resolve(layout: Layout, queue: Queue, id: String, then: AfterTry) -> Delivered {
    let (layout_of, id_of) = (layout.clone(), id.clone());
    let done = blocking(move || {
        let mut shelves = Shelves::new(&layout_of);
        let Some(mut document) = shelves.get(Shelf::Claimed, queue, &id_of) else {
            return Ok(None);
        };
        apply::after(&mut shelves, &mut document, &then, Shelf::Kept, clock::now())?;
        Ok(Some((then, document.entry().clone())))
    })
    .await;
    told(queue, id, done)
}

/// Moves an entry to another shelf: settled, kept back, or given up.
pub(super) async fn relocate(
    layout: Layout,
    from: Shelf,
    to: Shelf,
    queue: Queue,
    id: String,
) -> Delivered {
    let id_of = id.clone();
    let done = blocking(move || {
        let mut shelves = Shelves::new(&layout);
        let Some(document) = shelves.get(from, queue, &id_of) else { return Ok(None) };
        shelves.relocate(from, to, queue, &[id_of])?;
        let entry = document.entry().clone();
        let then = match to {
            Shelf::Failed => AfterTry::GiveUp {
                retry_count: entry.retry_count,
                reason: entry.last_error.clone().unwrap_or_default(),
            },
            Shelf::Queue | Shelf::Kept | Shelf::Claimed => AfterTry::PutBack,
            Shelf::Settled | Shelf::Dropped | Shelf::Quarantine => AfterTry::Settle,
        };
        Ok(Some((then, entry)))
    })
    .await;
    told(queue, id, done)
}

fn told(
    queue: Queue,
    id: String,
    done: Result<Option<(AfterTry, Entry)>, StoreError>,
) -> Delivered {
    match done {
        Ok(Some((then, entry))) => {
            Delivered { queue, id, entry: Some(entry), then: Some(then), problem: None }
        }
        Ok(None) => Delivered { queue, id, entry: None, then: None, problem: None },
        Err(error) => {
            Delivered { queue, id, entry: None, then: None, problem: Some(error.to_string()) }
        }
    }
}

/// Reads everything that may be due; off the loop, since there may be thousands of files.
pub(super) async fn look(layout: Layout) -> Vec<super::running::Seen> {
    spawn_blocking(move || {
        let mut shelves = Shelves::new(&layout);
        let mut transcripts: Option<Transcripts> = None;
        let mut seen = Vec::new();
        for shelf in [Shelf::Claimed, Shelf::Kept, Shelf::Queue] {
            for queue in [Queue::Delivery, Queue::Session] {
                for document in shelves.read(shelf, queue).documents {
                    let transcripts =
                        transcripts.get_or_insert_with(|| Transcripts::open(layout.state_dir()));
                    let evidence = evidence_of(transcripts, &document);
                    let key = document.entry().mark.key.clone().filter(|_| shelf == Shelf::Claimed);
                    let copy = key.and_then(|key| copies::find(&mut shelves, &key));
                    let entry = document.entry().clone();
                    seen.push(super::running::Seen {
                        shelf,
                        entry,
                        evidence,
                        copy: copy.map(|(_, copy)| copy),
                    });
                }
            }
        }
        seen
    })
    .await
    .unwrap_or_default()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Stopped))
}
