//! Naming the gateway's command in tideover's configuration, with every other byte kept.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

/// Why the configuration is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    /// It is no TOML.
    #[error("it is not valid TOML")]
    Syntax,
    /// The section is written in a form that is not edited.
    #[error("its `gateway` is not a section `[gateway]` of its own")]
    Form,
}

/// The comment that a new file begins with.
const HEADER: &str = "# tideover's configuration; every key is optional.\n\n";
/// What stands over the key where we write it.
const NOTE: &str =
    "# Written by `tideover install`: node, its options and OpenClaw's entry script.\n";

#[derive(Deserialize)]
struct Fragment {
    gateway: Option<Gateway>,
}

#[derive(Deserialize)]
struct Gateway {
    command: Option<Spanned<Vec<String>>>,
}

/// `[gateway] command` as the text has it; `None` when it is not there or not a list of words.
pub(super) fn command(text: &str) -> Option<Vec<String>> {
    Some(toml::from_str::<Fragment>(text).ok()?.gateway?.command?.into_inner())
}

/// The text with this `[gateway] command`; unchanged where it is there already.
pub(super) fn with_command(text: Option<&str>, words: &[String]) -> Result<String, EditError> {
    let Some(text) = text else {
        return Ok(format!("{HEADER}{}", section(words)));
    };
    let fragment: Fragment = toml::from_str(text).map_err(|_| EditError::Syntax)?;
    let edited = match fragment.gateway.map(|gateway| gateway.command) {
        Some(Some(there)) if there.get_ref() == words => return Ok(text.to_owned()),
        Some(Some(there)) => replaced(text, there.span(), &array(words)),
        Some(None) => {
            let line = text.split_inclusive('\n').scan(0, |end, line| {
                *end += line.len();
                Some((line, *end))
            });
            let header = line.into_iter().find(|(line, _)| line.trim() == "[gateway]");
            let (line, end) = header.ok_or(EditError::Form)?;
            let before = if line.ends_with('\n') { "" } else { "\n" };
            replaced(
                text,
                end..end,
                &endings(text, &format!("{before}{NOTE}command = {}\n", array(words))),
            )
        }
        None if text.is_empty() || text.ends_with('\n') => {
            format!("{text}{}", endings(text, &format!("\n{}", section(words))))
        }
        None => format!("{text}{}", endings(text, &format!("\n\n{}", section(words)))),
    };
    // What cannot be read back was not meant.
    if command(&edited).as_deref() == Some(words) { Ok(edited) } else { Err(EditError::Form) }
}

/// The text without `[gateway] command`; `None` where that is not a matter of whole lines.
pub(super) fn without_command(text: &str) -> Option<String> {
    let span = toml::from_str::<Fragment>(text).ok()?.gateway?.command?.span();
    let start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let key = text.get(start..span.start)?.trim().trim_end_matches('=').trim_end();
    if !matches!(key, "command" | "gateway.command") {
        return None;
    }
    let end = text.get(span.end..)?.find('\n').map_or(text.len(), |at| span.end + at + 1);
    let edited = replaced(text, start..end, "").replace(&endings(text, NOTE), "");
    // A section that only we had a use for.
    let empty = endings(text, "\n[gateway]\n");
    let edited = edited.strip_suffix(&empty).map(str::to_owned).unwrap_or(edited);
    command(&edited).is_none().then_some(edited)
}

fn replaced(text: &str, span: Range<usize>, by: &str) -> String {
    let (before, after) = (text.get(..span.start), text.get(span.end..));
    [before.unwrap_or_default(), by, after.unwrap_or_default()].concat()
}

fn section(words: &[String]) -> String {
    format!("[gateway]\n{NOTE}command = {}\n", array(words))
}

/// A list of strings. TOML reads JSON's, but for one character that it wants escaped.
fn array(words: &[String]) -> String {
    let word = |word: &String| {
        serde_json::Value::from(word.as_str()).to_string().replace('\u{7f}', "\\u007f")
    };
    format!("[{}]", words.iter().map(word).collect::<Vec<_>>().join(", "))
}

/// Our lines with the line endings of the text around them.
fn endings(text: &str, ours: &str) -> String {
    if text.contains("\r\n") { ours.replace('\n', "\r\n") } else { ours.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#"command = ["/usr/bin/node", "--max-old-space-size=8192", "/opt/a b/index.js"]"#;

    fn words() -> Vec<String> {
        ["/usr/bin/node", "--max-old-space-size=8192", "/opt/a b/index.js"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn every_other_byte_is_kept() {
        for (before, want) in [
            (
                "# mine\n[notice]\nenabled = true # yes\n",
                format!("# mine\n[notice]\nenabled = true # yes\n\n[gateway]\n{NOTE}{LINE}\n"),
            ),
            (
                "[gateway]\ncommand = [\"/a\"] # old\n\n[queue]\nretry   =  false\n",
                format!("[gateway]\n{LINE} # old\n\n[queue]\nretry   =  false\n"),
            ),
            (
                "[gateway]\n# nothing\n[queue]\n",
                format!("[gateway]\n{NOTE}{LINE}\n# nothing\n[queue]\n"),
            ),
            ("gateway.command = [\n  \"/a\",\n]\n[queue]\n", format!("gateway.{LINE}\n[queue]\n")),
            ("# only", format!("# only\n\n[gateway]\n{NOTE}{LINE}\n")),
            ("[gateway]", format!("[gateway]\n{NOTE}{LINE}\n")),
        ] {
            let after = with_command(Some(before), &words()).unwrap();
            assert_eq!(after, want);
            assert_eq!(command(&after), Some(words()));
            assert_eq!(
                with_command(Some(&after), &words()).unwrap(),
                after,
                "a second time changes nothing"
            );
        }
        let new = with_command(None, &words()).unwrap();
        assert_eq!(command(&new), Some(words()));
        assert_eq!(with_command(Some("[gateway"), &words()), Err(EditError::Syntax));
        assert_eq!(with_command(Some("gateway = {}\n"), &words()), Err(EditError::Form));
    }

    #[test]
    fn line_endings_are_kept() {
        for before in
            ["# a\r\n[gateway]\r\ncommand = [\"/a\"]\r\n", "# a\r\n", "[gateway]\r\n[queue]\r\n"]
        {
            let after = with_command(Some(before), &words()).unwrap();
            assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after:?}");
        }
    }

    #[test]
    fn our_lines_go_again() {
        for before in [
            "# mine\n[notice]\nenabled = true\n",
            "# mine\r\n[queue]\r\n",
            "[gateway]\n# nothing\n[queue]\n",
        ] {
            let after = with_command(Some(before), &words()).unwrap();
            assert_eq!(without_command(&after).as_deref(), Some(before));
        }
        assert_eq!(without_command("gateway = { command = [\"/a\"] }\n"), None);
        assert_eq!(without_command("[queue]\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_words_come_back(words in proptest::collection::vec("[^\0]{0,12}", 1..5), text in "(#[ -~]{0,9}\n){0,3}") {
            let after = with_command(Some(&text), &words).unwrap();
            proptest::prop_assert_eq!(command(&after), Some(words));
        }
    }
}
