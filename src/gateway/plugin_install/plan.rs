//! What to change in OpenClaw's configuration, as a pure function of its bytes.

use jsonc_parser::ast::{Array, Object, Value};
use jsonc_parser::common::Ranged;
use serde_json::{Value as Json, json};

use super::document::{Document, DocumentError, property};
use super::files::PLUGIN_ID;
use super::text::Edit;

/// Most edits one plan can need: path, entry, two flags, allow list. More means a mistake here.
const EDITS_MAX: usize = 8;

/// The outcome of planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The configuration afterwards.
    pub after: Vec<u8>,
    /// Each change in words; empty when everything is in place already.
    pub changes: Vec<String>,
    /// The lines of each change, as a diff shows them.
    pub(super) shown: Vec<(usize, String)>,
    /// The changes, in the order in which they were made.
    pub(super) edits: Vec<Edit>,
    /// The containers that were created, outermost first: `plugins`, `plugins.load`, …
    pub(super) created: Vec<String>,
}

/// Why the configuration is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error("{0}; correct it first (`openclaw doctor` can help)")]
    Document(#[from] DocumentError),
    /// A place that is to be edited does not look as expected.
    #[error(
        "line {line}: `{key}` {reason}; add the plugin by hand: plugins.load.paths += {dir:?}, \
         plugins.entries.tideover = {{enabled: true, hooks: {{allowConversationAccess: true}}}}"
    )]
    Unexpected {
        /// The line, counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is unexpected about it.
        reason: &'static str,
        /// The plugin's directory.
        dir: String,
    },
    /// The user has switched plugins off.
    #[error("line {line}: `{key}` keeps the plugin from loading; change that first")]
    SwitchedOff {
        /// The line, counted from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// The edited text does not come out as intended. Nothing was written.
    #[error(
        "the edited text would not read back as intended; please report the layout of the `plugins` section"
    )]
    Unproven,
}

/// One thing that is missing.
struct Step {
    edit: Edit,
    change: String,
    line: usize,
    shown: String,
    created: Option<&'static str>,
}

/// Plans the changes that make a gateway load the plugin from `dir`. Planning on its own result
/// changes nothing.
pub fn plan(bytes: &[u8], dir: &str) -> Result<Plan, PlanError> {
    let mut text = std::str::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8)?.to_owned();
    let mut plan = Plan {
        after: Vec::new(),
        changes: Vec::new(),
        shown: Vec::new(),
        edits: Vec::new(),
        created: Vec::new(),
    };
    while let Some(step) = next_step(&text, dir)? {
        text = step.edit.apply(&text).ok_or(PlanError::Unproven)?;
        plan.changes.push(step.change);
        plan.shown.push((step.line, step.shown));
        plan.created.extend(step.created.map(str::to_owned));
        plan.edits.push(step.edit);
        if plan.edits.len() > EDITS_MAX {
            return Err(PlanError::Unproven);
        }
    }
    plan.after = text.into_bytes();
    Ok(plan)
}

/// The places of the configuration, walked from the outside in.
struct Walk<'d, 'a> {
    document: &'d Document<'a>,
    dir: &'d str,
}

/// What was found at a place.
enum Found<T> {
    There(T),
    Missing(Step),
}

fn next_step(text: &str, dir: &str) -> Result<Option<Step>, PlanError> {
    let document = Document::parse(text)?;
    let walk = Walk { document: &document, dir };
    let entry = json!({ "enabled": true, "hooks": { "allowConversationAccess": true } });
    let load = json!({ "paths": [dir] });
    let entries = json!({ PLUGIN_ID: entry });
    let plugins = json!({ "load": load, "entries": entries });
    macro_rules! there {
        ($found:expr) => {
            match $found? {
                Found::There(value) => value,
                Found::Missing(step) => return Ok(Some(step)),
            }
        };
    }
    let root = document.root();
    walk.no_include(root, "$include")?;
    let plugins = there!(walk.object(root, "plugins", "plugins", &plugins));
    walk.switched_on(plugins)?;
    let load = there!(walk.object(plugins, "load", "plugins.load", &load));
    let paths = there!(walk.array(load, "paths", "plugins.load.paths", &json!([dir])));
    if !holds(paths, dir) {
        return Ok(Some(walk.element(paths, "plugins.load.paths", dir)));
    }
    let entries = there!(walk.object(plugins, "entries", "plugins.entries", &entries));
    let entry = there!(walk.object(entries, PLUGIN_ID, "plugins.entries.tideover", &entry));
    there!(walk.is_true(entry, "enabled", "plugins.entries.tideover.enabled"));
    let hooks = json!({ "allowConversationAccess": true });
    let hooks = there!(walk.object(entry, "hooks", "plugins.entries.tideover.hooks", &hooks));
    const ACCESS: &str = "plugins.entries.tideover.hooks.allowConversationAccess";
    there!(walk.is_true(hooks, "allowConversationAccess", ACCESS));
    match walk.get(plugins, "allow", "plugins.allow")? {
        // An empty list allows everything: to put one name into it would forbid the others.
        Some(Value::Array(allow)) if !allow.elements.is_empty() && !holds(allow, PLUGIN_ID) => {
            Ok(Some(walk.element(allow, "plugins.allow", PLUGIN_ID)))
        }
        None | Some(Value::Array(_)) => Ok(None),
        Some(other) => Err(walk.unexpected(other.start(), "plugins.allow", "is not a list")),
    }
}

impl<'a> Walk<'_, 'a> {
    fn get<'o>(
        &self,
        object: &'o Object<'a>,
        name: &str,
        key: &str,
    ) -> Result<Option<&'o Value<'a>>, PlanError> {
        let found = property(object, name);
        let found = found.map_err(|reason| self.unexpected(object.range.start, key, reason))?;
        Ok(found.map(|prop| &prop.value))
    }

    fn object<'o>(
        &self,
        parent: &'o Object<'a>,
        name: &str,
        key: &'static str,
        value: &Json,
    ) -> Result<Found<&'o Object<'a>>, PlanError> {
        match self.get(parent, name, key)? {
            Some(Value::Object(object)) => {
                self.no_include(object, key)?;
                Ok(Found::There(object))
            }
            Some(other) => Err(self.unexpected(other.start(), key, "is not an object")),
            None => Ok(Found::Missing(self.created(parent, name, key, value))),
        }
    }

    fn array<'o>(
        &self,
        parent: &'o Object<'a>,
        name: &str,
        key: &'static str,
        value: &Json,
    ) -> Result<Found<&'o Array<'a>>, PlanError> {
        match self.get(parent, name, key)? {
            Some(Value::Array(array)) => Ok(Found::There(array)),
            Some(other) => Err(self.unexpected(other.start(), key, "is not a list")),
            None => Ok(Found::Missing(self.created(parent, name, key, value))),
        }
    }

    fn is_true(
        &self,
        parent: &Object<'a>,
        name: &str,
        key: &'static str,
    ) -> Result<Found<()>, PlanError> {
        match self.get(parent, name, key)? {
            Some(Value::BooleanLit(lit)) if lit.value => Ok(Found::There(())),
            Some(value) => {
                let edit = self.document.replace(value, &json!(true));
                let shown = format!("-{name}: {}\n+{name}: true", edit.removed);
                let line = self.document.line(edit.offset);
                let change = format!("set {key} to true");
                Ok(Found::Missing(Step { edit, change, line, shown, created: None }))
            }
            None => Ok(Found::Missing(self.created(parent, name, key, &json!(true)))),
        }
    }

    fn created(&self, parent: &Object<'a>, name: &str, key: &'static str, value: &Json) -> Step {
        let edit = self.document.add_property(parent, name, value);
        let line = self.document.line(edit.offset + edit.removed.len());
        let shown = prefixed(&json!({ name: value }));
        Step { edit, change: format!("add {key}"), line, shown, created: Some(key) }
    }

    fn element(&self, array: &Array<'a>, key: &str, value: &str) -> Step {
        let edit = self.document.add_element(array, &json!(value));
        let line = self.document.line(edit.offset + edit.removed.len());
        let shown = format!("+{}", json!(value));
        Step { edit, change: format!("add {value:?} to {key}"), line, shown, created: None }
    }

    /// The gateway merges an included file into this place: what is written here may not be what
    /// it reads.
    fn no_include(&self, object: &Object<'a>, key: &str) -> Result<(), PlanError> {
        match object.properties.iter().find(|prop| prop.name.as_str() == "$include") {
            Some(prop) => Err(self.unexpected(prop.range.start, key, "includes another file")),
            None => Ok(()),
        }
    }

    fn switched_on(&self, plugins: &Object<'a>) -> Result<(), PlanError> {
        if let Some(Value::BooleanLit(lit)) = self.get(plugins, "enabled", "plugins.enabled")?
            && !lit.value
        {
            let line = self.document.line(lit.range.start);
            return Err(PlanError::SwitchedOff { line, key: "plugins.enabled" });
        }
        if let Some(Value::Array(deny)) = self.get(plugins, "deny", "plugins.deny")?
            && holds(deny, PLUGIN_ID)
        {
            let line = self.document.line(deny.range.start);
            return Err(PlanError::SwitchedOff { line, key: "plugins.deny" });
        }
        Ok(())
    }

    fn unexpected(&self, offset: usize, key: &str, reason: &'static str) -> PlanError {
        let (line, dir) = (self.document.line(offset), self.dir.to_owned());
        PlanError::Unexpected { line, key: key.to_owned(), reason, dir }
    }
}

fn holds(array: &Array<'_>, text: &str) -> bool {
    array.elements.iter().any(|value| matches!(value, Value::StringLit(lit) if lit.value == text))
}

/// The lines of an added property, without the braces around it.
fn prefixed(value: &Json) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let inner = lines.get(1..lines.len().saturating_sub(1)).unwrap_or_default();
    let lines: Vec<String> =
        inner.iter().map(|line| format!("+{}", line.strip_prefix("  ").unwrap_or(line))).collect();
    lines.join("\n")
}
