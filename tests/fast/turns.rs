//! The stand-in's turns: asked for over the gateway's protocol, taken or not, and over when the test says so.

use std::path::Path;
use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::stand_in::{log_line, open_log};

/// Turns that were asked for, one a line.
pub(crate) const AGENTS: &str = "agents";
/// While there is a file of this name, turns are not taken.
pub(crate) const AGENT_REFUSED: &str = "agent-refused";
/// A turn that was taken is over once there is a file of this name with its key behind it.
pub(crate) const AGENT_ENDED: &str = "agent-ended-";

/// Answers a request for a turn: that it was taken, and in the end that it is over.
pub(super) async fn answer(
    dir: &Path,
    request: &Value,
    socket: &mut WebSocketStream<TcpStream>,
) -> Option<()> {
    let key = &request["params"]["idempotencyKey"];
    let mut frame = json!({ "type": "res", "id": request["id"] });
    log_line(&open_log(dir, AGENTS), &request["params"].to_string());
    if dir.join(AGENT_REFUSED).exists() {
        frame["ok"] = json!(false);
        frame["error"] = json!({ "code": "UNAVAILABLE", "message": "not now" });
        return socket.send(Message::text(frame.to_string())).await.ok();
    }
    frame["ok"] = json!(true);
    frame["payload"] = json!({ "runId": key, "status": "accepted" });
    socket.send(Message::text(frame.to_string())).await.ok()?;
    let ended = dir.join(format!("{AGENT_ENDED}{}", key.as_str()?));
    while !ended.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    frame["payload"]["status"] = json!("ok");
    socket.send(Message::text(frame.to_string())).await.ok()
}
