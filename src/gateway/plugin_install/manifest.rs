//! What was installed, so that it can be taken back to the byte; and taking it back.
//!
//! The manifest holds the inserted text and two hashes of the configuration, never a copy of it:
//! the configuration holds secrets.

use jsonc_parser::cst::{CstNode, CstObject, CstRootNode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{Document, DocumentError, options};
use super::files::PLUGIN_ID;
use super::plan::Plan;
use super::text::Edit;

/// The manifest's schema.
pub(super) const SCHEMA: &str = "tideover.install/1";

/// What `install` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema: String,
    /// The plugin's directory as it stands in the configuration.
    pub(super) dir: String,
    /// Whether the configuration did not exist before.
    pub(super) config_created: bool,
    /// Containers of the configuration that were created, outermost first.
    pub(super) created: Vec<String>,
    /// The changes, oldest first: more than one when the configuration was edited by hand in
    /// between and installed into again.
    pub(super) layers: Vec<Layer>,
}

/// One round of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    before_sha256: String,
    after_sha256: String,
    edits: Vec<Edit>,
}

impl Manifest {
    pub(super) fn new(dir: &str, config_created: bool) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            dir: dir.to_owned(),
            config_created,
            created: Vec::new(),
            layers: Vec::new(),
        }
    }

    /// Adds one round of changes.
    pub(super) fn record(&mut self, before: &[u8], plan: &Plan) {
        self.created.extend(plan.created.iter().cloned());
        self.layers.push(Layer {
            before_sha256: hash(before),
            after_sha256: hash(&plan.after),
            edits: plan.edits.clone(),
        });
    }

    /// The configuration without the plugin: the exact bytes found where it is as it was left,
    /// else the same document without our keys.
    pub(super) fn remove_from(&self, bytes: &[u8]) -> Result<Vec<u8>, DocumentError> {
        let mut text = std::str::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8)?.to_owned();
        for (index, layer) in self.layers.iter().enumerate().rev() {
            match layer.undo(&text) {
                Some(earlier) => text = earlier,
                // Written down and never carried out.
                None if hash(text.as_bytes()) == layer.before_sha256 => {}
                None => return remove_keys(&text, &self.dir, &self.created),
            }
            if index == 0 {
                return Ok(text.into_bytes());
            }
        }
        remove_keys(&text, &self.dir, &self.created)
    }
}

impl Layer {
    fn undo(&self, text: &str) -> Option<String> {
        if hash(text.as_bytes()) != self.after_sha256 {
            return None;
        }
        let undone =
            self.edits.iter().rev().try_fold(text.to_owned(), |text, edit| edit.undo(&text))?;
        (hash(undone.as_bytes()) == self.before_sha256).then_some(undone)
    }
}

/// Removes our keys from a document that has changed since. What else stands there stays; a
/// container goes only when it was created for us and nothing is left in it.
fn remove_keys(text: &str, dir: &str, created: &[String]) -> Result<Vec<u8>, DocumentError> {
    // Parsed twice: this parser names the line of a mistake.
    Document::parse(text)?;
    let root = CstRootNode::parse(text, &options()).map_err(|_| DocumentError::NotAnObject)?;
    let top = root.object_value().ok_or(DocumentError::NotAnObject)?;
    if let Some(plugins) = top.object_value("plugins") {
        if let Some(load) = plugins.object_value("load") {
            remove_element(&load, "paths", dir);
        }
        remove_element(&plugins, "allow", PLUGIN_ID);
        if let Some(entry) =
            plugins.object_value("entries").and_then(|entries| entries.get(PLUGIN_ID))
        {
            entry.remove();
        }
    }
    let empty = ["plugins.load.paths", "plugins.load", "plugins.entries", "plugins"];
    // Creating `plugins` or `plugins.load` created what is in it as well.
    let ours =
        |key: &str| created.iter().any(|made| key == made || key.starts_with(&format!("{made}.")));
    for key in empty.into_iter().filter(|key| ours(key)) {
        remove_if_empty(&top, key);
    }
    Ok(root.to_string().into_bytes())
}

fn remove_element(object: &CstObject, name: &str, text: &str) {
    let elements = object.array_value(name).map(|array| array.elements()).unwrap_or_default();
    let is_ours = |node: &CstNode| {
        let decoded = node.as_string_lit().and_then(|lit| lit.decoded_value().ok());
        decoded.as_deref() == Some(text)
    };
    for element in elements.into_iter().filter(is_ours) {
        element.remove();
    }
}

fn remove_if_empty(top: &CstObject, key: &str) {
    let mut names: Vec<&str> = key.split('.').collect();
    let last = names.pop().unwrap_or_default();
    let parent = names.iter().try_fold(top.clone(), |object, name| object.object_value(name));
    let Some(property) = parent.and_then(|parent| parent.get(last)) else {
        return;
    };
    let object_empty = property.object_value().is_some_and(|object| is_bare(&object.children()));
    let array_empty = property.array_value().is_some_and(|array| is_bare(&array.children()));
    if object_empty || array_empty {
        property.remove();
    }
}

/// Whether a container holds neither a value nor a comment.
fn is_bare(children: &[CstNode]) -> bool {
    children.iter().all(|node| node.is_whitespace() || node.is_newline() || node.is_token())
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
