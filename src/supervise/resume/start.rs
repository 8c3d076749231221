//! Having the gateway run the turn that a person's word calls for.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::core::checkpoint::Route;
use crate::gateway::rpc::{Client, ConnectOptions, TurnOutcome, TurnRequest};

use super::super::engine::GatewayLink;
use super::super::notices::options;

/// How long a person waits for the gateway to take the turn.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(8);
/// How long the end of the turn is waited for.
const TURN_TIMEOUT: Duration = Duration::from_secs(6 * 60 * 60);
/// How often a turn that the gateway gives back is started.
const TRIES_MAX: u32 = 5;
/// Pause before it is started again.
const TRY_AGAIN: Duration = Duration::from_millis(1_500);
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a turn was taken.
pub(super) enum Begun {
    /// It was; the receiver resolves when it has ended, or will not be heard of any more.
    Accepted(oneshot::Receiver<()>),
    /// It surely was not.
    NotTaken(String),
}

/// Asks the gateway to run a turn under `run_id`, which is the key of the request and the id of the run at once.
/// Returns when it has taken it; `stands` says whether it is still wanted. A turn of which no word comes may run: it counts as taken.
pub(super) async fn begin<Stands: Future<Output = bool>>(
    link: &GatewayLink,
    session_key: &str,
    route: Option<Route>,
    run_id: &str,
    message: String,
    stands: impl Fn() -> Stands + 'static,
) -> Begun {
    let connect = ConnectOptions { patience: ACCEPT_PATIENCE, ..options(link) };
    let mut client = match Client::connect(&connect).await {
        Ok(client) => client,
        Err(error) => return Begun::NotTaken(error.to_string()),
    };
    let run_id = run_id.to_owned();
    let mut request = TurnRequest {
        session_key: session_key.to_owned(),
        message,
        route,
        idempotency_key: run_id.clone(),
    };
    let (accepted, taken) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    spawn_local(async move {
        let mut accepted = Some(accepted);
        let mut tell = |how: Result<(), String>| {
            if let Some(accepted) = accepted.take() {
                let _ = accepted.send(how);
            }
        };
        let mut tries = 1;
        let outcome = loop {
            let outcome = client.run_turn_telling(&request, TURN_TIMEOUT, || tell(Ok(()))).await;
            // It surely has not begun, whatever was said before: under the same key it would get the same answer.
            if !matches!(outcome, TurnOutcome::NotTaken { .. }) || tries == TRIES_MAX {
                break outcome;
            }
            tries += 1;
            request.idempotency_key = format!("{run_id}.{tries}");
            tokio::time::sleep(TRY_AGAIN).await;
            // Its person may have closed the session meanwhile, or said something else.
            if !stands().await {
                break outcome;
            }
        };
        match outcome {
            TurnOutcome::NotTaken { reason } | TurnOutcome::Failed { reason } => tell(Err(reason)),
            TurnOutcome::Ran | TurnOutcome::NoAnswer { .. } => tell(Ok(())),
        }
        client.close(CLOSE_TIMEOUT).await;
        let _ = ended.send(());
    });
    match tokio::time::timeout(ACCEPT_PATIENCE, taken).await {
        Ok(Ok(Err(reason))) => Begun::NotTaken(reason),
        Ok(Ok(Ok(())) | Err(_)) | Err(_) => Begun::Accepted(end),
    }
}
