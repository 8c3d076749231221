//! Looking at and inserting into a JSON5 document, by byte positions.
//!
//! The parser gives the positions; the text between them is never rewritten. That keeps what a
//! syntax tree that prints itself would not: a one-line document stays on one line.

use jsonc_parser::ast::{Array, Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use serde_json::Value as Json;

use super::text::{Edit, Style, line_indent};

/// A configuration that cannot be edited with safety.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are not UTF-8.
    #[error("it is not valid UTF-8")]
    NotUtf8,
    /// The text is not JSON5, as far as the parser here reads it.
    #[error("line {line}: {reason}")]
    Syntax {
        /// The line, counted from 1.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// The document is not an object.
    #[error("it does not hold an object")]
    NotAnObject,
}

/// A parsed document.
pub(super) struct Document<'a> {
    text: &'a str,
    root: Object<'a>,
    tokens: Vec<TokenAndRange<'a>>,
}

/// Where something is inserted: an object or a list.
pub(super) struct Container {
    open: usize,
    /// Begin and end of the last child.
    last: Option<(usize, usize)>,
}

impl From<&Object<'_>> for Container {
    fn from(object: &Object<'_>) -> Self {
        let last = object.properties.last().map(|prop| (prop.range.start, prop.value.end()));
        Self { open: object.range.start, last }
    }
}

impl From<&Array<'_>> for Container {
    fn from(array: &Array<'_>) -> Self {
        let last = array.elements.last().map(|value| (value.start(), value.end()));
        Self { open: array.range.start, last }
    }
}

/// What JSON5 allows, and no more: a missing comma is a mistake to point out, not to edit around.
pub(super) fn options() -> ParseOptions {
    ParseOptions { allow_missing_commas: false, ..ParseOptions::default() }
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, DocumentError> {
        let collect =
            CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        let parsed = parse_to_ast(text, &collect, &options()).map_err(|error| {
            DocumentError::Syntax { line: error.line_display(), reason: error.kind().to_string() }
        })?;
        let Some(Value::Object(root)) = parsed.value else {
            return Err(DocumentError::NotAnObject);
        };
        Ok(Self { text, root, tokens: parsed.tokens.unwrap_or_default() })
    }

    pub(super) fn root(&self) -> &Object<'a> {
        &self.root
    }

    /// The line of a byte offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    /// Replaces a value.
    pub(super) fn replace(&self, value: &Value<'_>, new: &Json) -> Edit {
        let old = self.text.get(value.start()..value.end()).unwrap_or_default();
        Edit { offset: value.start(), removed: old.to_owned(), inserted: new.to_string() }
    }

    /// Adds a property at the end of an object.
    pub(super) fn add_property(&self, object: &Object<'_>, name: &str, value: &Json) -> Edit {
        self.insert(&Container::from(object), Some(name), value)
    }

    /// Adds an element at the end of a list.
    pub(super) fn add_element(&self, array: &Array<'_>, value: &Json) -> Edit {
        self.insert(&Container::from(array), None, value)
    }

    fn insert(&self, container: &Container, name: Option<&str>, value: &Json) -> Edit {
        let style = self.style();
        match container.last {
            Some(last) => self.insert_after(last, name, value, style),
            None => self.insert_first(container.open + 1, name, value, style),
        }
    }

    /// Into an empty container, right behind its opening bracket.
    fn insert_first(&self, at: usize, name: Option<&str>, value: &Json, style: Style<'_>) -> Edit {
        let outer = line_indent(self.text, at);
        let inserted = match style.indent {
            None => item(name, value, "", style),
            Some(unit) => {
                let inner = format!("{outer}{unit}");
                let rest = self.text.get(at..).unwrap_or_default();
                let trivia = rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
                let closes = !rest.get(trivia..).is_some_and(|rest| rest.starts_with('\n'));
                let end = if closes { format!("{}{outer}", style.newline) } else { String::new() };
                format!("{}{inner}{}{end}", style.newline, item(name, value, &inner, style))
            }
        };
        Edit { offset: at, removed: String::new(), inserted }
    }

    /// Behind the last child, its comma and the comments that stand on its line.
    fn insert_after(
        &self,
        (start, end): (usize, usize),
        name: Option<&str>,
        value: &Json,
        style: Style<'_>,
    ) -> Edit {
        let comma = self.comma_after(end);
        let anchor = comma.unwrap_or(end);
        let before = self.text.get(..start).unwrap_or_default();
        let own_line = before.trim_end_matches([' ', '\t']).ends_with('\n');
        if !own_line {
            let item = item(name, value, "", Style { indent: None, ..style });
            let inserted = match (comma.is_some(), style.spaced) {
                (true, _) => format!(" {item},"),
                (false, true) => format!(", {item}"),
                (false, false) => format!(",{item}"),
            };
            return Edit { offset: anchor, removed: String::new(), inserted };
        }
        let line_end = self.comments_end(anchor);
        let kept = self.text.get(end..line_end).unwrap_or_default();
        let indent = line_indent(self.text, start);
        let item = item(name, value, indent, style);
        let (first, last) = if comma.is_some() { ("", ",") } else { (",", "") };
        let inserted = format!("{first}{kept}{}{indent}{item}{last}", style.newline);
        Edit { offset: end, removed: kept.to_owned(), inserted }
    }

    /// The end of a comma that follows `offset`, comments aside.
    fn comma_after(&self, offset: usize) -> Option<usize> {
        self.tokens_from(offset)
            .find(|token| !is_comment(&token.token))
            .filter(|token| token.token == Token::Comma)
            .map(|token| token.range.end)
    }

    /// The end of the comments that begin on the line of `offset`, else `offset`.
    fn comments_end(&self, offset: usize) -> usize {
        let mut end = offset;
        for token in self.tokens_from(offset) {
            let gap = self.text.get(end..token.range.start).unwrap_or("\n");
            if !is_comment(&token.token) || gap.contains('\n') {
                break;
            }
            end = token.range.end;
        }
        // A line comment's range ends before the line feed, and may hold the carriage return.
        if self.text.get(..end).is_some_and(|head| end > offset && head.ends_with('\r')) {
            end -= 1;
        }
        end
    }

    fn tokens_from(&self, offset: usize) -> impl Iterator<Item = &TokenAndRange<'a>> {
        self.tokens.iter().skip_while(move |token| token.range.start < offset)
    }

    fn style(&self) -> Style<'a> {
        let body = self.text.trim();
        let newline = match self.text.find('\n') {
            Some(at) if self.text.get(..at).is_some_and(|head| head.ends_with('\r')) => "\r\n",
            Some(_) | None => "\n",
        };
        let first =
            self.root.properties.first().map(|prop| line_indent(self.text, prop.range.start));
        let indent =
            body.contains('\n').then(|| first.filter(|indent| !indent.is_empty()).unwrap_or("  "));
        Style { newline, indent, spaced: body.contains(": ") || !body.contains(':') }
    }
}

fn is_comment(token: &Token<'_>) -> bool {
    matches!(token, Token::CommentLine(_) | Token::CommentBlock(_))
}

/// A property or element as text; its further lines begin with `indent`.
fn item(name: Option<&str>, value: &Json, indent: &str, style: Style<'_>) -> String {
    let value = write(value, indent, style);
    match name {
        Some(name) => {
            format!("{}{}{value}", Json::from(name), if style.spaced { ": " } else { ":" })
        }
        None => value,
    }
}

fn write(value: &Json, indent: &str, style: Style<'_>) -> String {
    let inner = style.indent.map(|unit| format!("{indent}{unit}")).unwrap_or_default();
    let (open, parts, close) = match value {
        Json::Object(map) if !map.is_empty() => {
            let parts = map.iter().map(|(name, value)| item(Some(name), value, &inner, style));
            ('{', parts.collect::<Vec<_>>(), '}')
        }
        Json::Array(list) if !list.is_empty() => {
            ('[', list.iter().map(|value| write(value, &inner, style)).collect(), ']')
        }
        Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::String(_)
        | Json::Array(_)
        | Json::Object(_) => return value.to_string(),
    };
    let newline = style.newline;
    if style.indent.is_some() {
        let parts = parts.join(&format!(",{newline}{inner}"));
        return format!("{open}{newline}{inner}{parts}{newline}{indent}{close}");
    }
    format!("{open}{}{close}", parts.join(if style.spaced { ", " } else { "," }))
}

/// The only property of that name; an error text when there are several, since a reader then
/// takes the last one and an editor may take another.
pub(super) fn property<'o, 'a>(
    object: &'o Object<'a>,
    name: &str,
) -> Result<Option<&'o ObjectProp<'a>>, &'static str> {
    let mut found = object.properties.iter().filter(|prop| prop.name.as_str() == name);
    let first = found.next();
    if found.next().is_some() {
        return Err("is there more than once");
    }
    Ok(first)
}
