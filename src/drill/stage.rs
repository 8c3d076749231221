//! What a story is played on: the mocks at both ends of the gateway, and the places that an outsider
//! looks at. How the gateway is started, and by whom, is no part of it: a [`Rig`](super::rig::Rig)
//! starts it itself, the tests also have a service manager do it.

use std::path::PathBuf;

use super::checkpoint;
use super::error::Result;
use super::home::DmScope;
use super::mock_model::{MockModel, Script, Step};
use super::mock_telegram::{MockTelegram, SentMessage};
use super::rig::TURN_MAX;
use super::work::Work;

/// A view of it, for as long as the gateway's surroundings stand.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The model.
    pub model: &'a MockModel,
    /// The channel.
    pub telegram: &'a MockTelegram,
    /// The gateway's state directory.
    pub state: PathBuf,
    /// Where the mock tool's scripts, markers and gates are; the gateway's user can write there.
    pub work: PathBuf,
    /// How chats become sessions.
    pub dm_scope: DmScope,
}

impl Stage<'_> {
    /// A user writes to the bot.
    pub fn send_user(&self, chat: i64, text: &str) {
        self.telegram.user_says(chat, text);
    }

    /// A whole turn without tools: the user writes, the model answers `reply`, the user gets it.
    ///
    /// # Errors
    /// When the reply does not arrive.
    pub async fn plain_turn(&self, chat: i64, text: &str, reply: &str) -> Result<SentMessage> {
        self.model.script(Script::marker(text, [Step::text(reply)]));
        let from = self.telegram.mark();
        self.send_user(chat, text);
        let (what, wanted) = (format!("the reply {reply:?}"), reply.to_owned());
        let arrived = move |m: &SentMessage| m.chat == chat && m.text.contains(&wanted);
        self.telegram.wait_for(&what, from, TURN_MAX, arrived).await
    }

    /// Key of a chat's session.
    #[must_use]
    pub fn session_key(&self, chat: i64) -> String {
        self.dm_scope.session_key(chat)
    }

    /// Where the checkpoint of a chat's session is.
    #[must_use]
    pub fn checkpoint_path(&self, chat: i64) -> PathBuf {
        checkpoint::path(&self.state, &self.session_key(chat))
    }

    /// A mock tool's work for a chat, kept in flight until its gate opens.
    ///
    /// # Errors
    /// When its script cannot be written.
    pub fn work(&self, name: &str, chat: i64) -> Result<Work> {
        Work::create(&self.work, name, &self.checkpoint_path(chat))
    }
}
