//! systemd's quoting: from one line to words, and back.
//!
//! The rules are those of `systemd.service(5)` "Command lines" and of systemd's `extract-word.c`: quotes may stand
//! anywhere in a word, escapes are C's, `%` begins a specifier and `$` a variable.

/// Most words of one line.
const WORDS_MAX: usize = 1024;

/// Why a line is not taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// A quote is never closed.
    #[error("a quote is not closed")]
    OpenQuote,
    /// An escape that systemd does not know either.
    #[error("an escape sequence is not valid")]
    Escape,
    /// Too long.
    #[error("it has more than {WORDS_MAX} words")]
    TooMany,
    /// What it stands for is known to systemd only.
    #[error("the meaning of {0:?} depends on systemd")]
    Specifier(String),
    /// What it stands for is in the environment.
    #[error("{0:?} refers to a variable")]
    Variable(String),
    /// Several commands, or one with a prefix such as `@`.
    #[error("{0:?} is more than a plain command")]
    NotPlain(String),
}

/// Splits a line into words: quotes and escapes are gone, specifiers and variables still stand.
pub(super) fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().push(escape(&mut chars)?),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ' | '\t' | '\n' | '\r', None) => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
        if words.len() > WORDS_MAX {
            return Err(WordsError::TooMany);
        }
    }
    if quote.is_some() {
        return Err(WordsError::OpenQuote);
    }
    words.extend(word);
    Ok(words)
}

/// The character that an escape stands for; the backslash is already taken.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<char, WordsError> {
    let first = chars.next().ok_or(WordsError::Escape)?;
    let (digits, radix) = match first {
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\u{b}'),
        's' => return Ok(' '),
        '\\' | '"' | '\'' | ';' => return Ok(first),
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='3' => (2, 8),
        _ => return Err(WordsError::Escape),
    };
    let rest = chars.as_str();
    let mut text = rest.get(..digits).ok_or(WordsError::Escape)?.to_owned();
    *chars = rest.get(digits..).unwrap_or_default().chars();
    if radix == 8 {
        text.insert(0, first);
    }
    let value = u32::from_str_radix(&text, radix).ok().filter(|value| *value != 0);
    // A byte above 127 may be a part of a longer character; nobody writes paths that way.
    let whole = |value: &u32| matches!(first, 'u' | 'U') || *value < 128;
    value.filter(whole).and_then(char::from_u32).ok_or(WordsError::Escape)
}

/// The words of an `ExecStart=` line as the program gets them. Whatever only systemd can resolve is an error, except
/// `%%`, `%h` and `$$`.
pub(super) fn command(line: &str, home: &str) -> Result<Vec<String>, WordsError> {
    let words = split(line)?;
    if let Some(first) = words.first()
        && first.starts_with(['@', '-', ':', '+', '!'])
    {
        return Err(WordsError::NotPlain(first.clone()));
    }
    if words.iter().any(|word| word == ";") {
        return Err(WordsError::NotPlain(";".to_owned()));
    }
    words.iter().map(|word| resolve(word, home).and_then(|word| undollar(&word))).collect()
}

/// Replaces the specifiers that can be known here.
pub(super) fn resolve(word: &str, home: &str) -> Result<String, WordsError> {
    let mut out = String::with_capacity(word.len());
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match (c, c == '%') {
            (_, false) => out.push(c),
            (_, true) => match chars.next() {
                Some('%') => out.push('%'),
                Some('h') => out.push_str(home),
                Some(other) => return Err(WordsError::Specifier(format!("%{other}"))),
                None => out.push('%'),
            },
        }
    }
    Ok(out)
}

fn undollar(word: &str) -> Result<String, WordsError> {
    let mut parts = word.split("$$");
    // A `$` that is left would be expanded, also in the middle of a word when it is `${NAME}`.
    if parts.any(|part| part.starts_with('$') || part.contains("${")) {
        return Err(WordsError::Variable(word.to_owned()));
    }
    Ok(word.replace("$$", "$"))
}

/// Words as one `ExecStart=` value. systemd, and the gateway's own reader of units, get the same words back.
pub(super) fn join(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// A word of an `ExecStart=`, in which `%` and `$` have a meaning of their own.
fn quote(word: &str) -> String {
    quote_plain(&word.replace('%', "%%").replace('$', "$$"))
}

/// A word with its quotes and blanks made safe, and nothing else.
pub(super) fn quote_plain(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 2);
    for c in word.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\' | ';');
    if !word.is_empty() && word.chars().all(plain) { out } else { format!("\"{out}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_systemd_takes_them_apart() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("/bin/a  gateway\t--port 1", &["/bin/a", "gateway", "--port", "1"]),
            (r#""/opt/my node/bin/node" 'a b' c"#, &["/opt/my node/bin/node", "a b", "c"]),
            (r#"a"b c"d"#, &["ab cd"]),
            (r#""" ''"#, &["", ""]),
            (r"a\sb \x41 \101 \u00e4 \;", &["a b", "A", "A", "ä", ";"]),
            (r#""a\"b" 'it\'s'"#, &["a\"b", "it's"]),
        ];
        for (line, want) in table {
            assert_eq!(split(line).unwrap(), *want, "{line}");
        }
        for (line, want) in [
            ("\"a", WordsError::OpenQuote),
            (r"a\q", WordsError::Escape),
            ("a\\", WordsError::Escape),
            (r"a\x4", WordsError::Escape),
        ] {
            assert_eq!(split(line).unwrap_err(), want, "{line}");
        }
    }

    #[test]
    fn what_only_systemd_knows_is_refused() {
        assert_eq!(
            command("/a %h/x 100%% $$1", "/home/u").unwrap(),
            ["/a", "/home/u/x", "100%", "$1"]
        );
        for line in ["-/a", "@/a b", "/a ; /b", "/a %t/x", "/a $X", "/a ${X}", "/a x${X}"] {
            assert!(command(line, "/h").is_err(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_joined_comes_apart_again(words in proptest::collection::vec("[^\0\u{b}\u{c}]{0,12}", 0..6)) {
            let line = join(&words);
            proptest::prop_assert!(!line.contains('\n'));
            let back: Result<Vec<String>, WordsError> =
                split(&line).and_then(|words| words.iter().map(|word| resolve(word, "").and_then(|w| undollar(&w))).collect());
            proptest::prop_assert_eq!(back.unwrap(), words);
        }

        #[test]
        fn no_line_makes_it_panic(line in ".{0,80}") {
            let _ = command(&line, "/h");
        }
    }
}
