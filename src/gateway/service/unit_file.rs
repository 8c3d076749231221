//! Reading a unit file, as far as an installation has to.

use std::collections::BTreeMap;

use super::words;

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assignment {
    section: String,
    key: String,
    value: String,
    /// First and last line in the file, counted from 0.
    lines: (usize, usize),
}

/// The assignments of one file, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct UnitFile {
    assignments: Vec<Assignment>,
}

impl UnitFile {
    /// Reads a file. Nothing is an error here: what is not understood is not found either.
    pub(super) fn parse(text: &str) -> Self {
        let mut unit = Self::default();
        let mut section = String::new();
        let mut pending: Option<(usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            let (first, mut logical) = pending.take().unwrap_or_else(|| (number, String::new()));
            match line.strip_suffix('\\') {
                Some(more) => {
                    logical.push_str(more);
                    logical.push(' ');
                    pending = Some((first, logical));
                }
                None => {
                    logical.push_str(line);
                    unit.take(&logical, &mut section, (first, number));
                }
            }
        }
        unit
    }

    fn take(&mut self, line: &str, section: &mut String, lines: (usize, usize)) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(section);
        } else if let Some((key, value)) = line.split_once('=') {
            self.assignments.push(Assignment {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                lines,
            });
        }
    }

    fn of<'u>(&'u self, section: &str, key: &str) -> impl Iterator<Item = &'u Assignment> {
        self.assignments.iter().filter(move |item| item.section == section && item.key == key)
    }

    /// Whether a key is assigned, be it to nothing.
    pub(super) fn assigns(&self, section: &str, key: &str) -> bool {
        self.of(section, key).next().is_some()
    }

    /// The values in force: an empty one takes back those before it.
    pub(super) fn values<'u>(&'u self, section: &str, key: &str) -> Vec<&'u str> {
        let mut values = Vec::new();
        for item in self.of(section, key) {
            if item.value.is_empty() {
                values.clear();
            } else {
                values.push(item.value.as_str());
            }
        }
        values
    }

    /// The variables of `Environment=`. A line that systemd would not read is left out.
    pub(super) fn environment(&self, home: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for line in self.values("Service", "Environment") {
            for word in words::split(line).unwrap_or_default() {
                if let Some((name, value)) = word.split_once('=')
                    && let Ok(value) = words::resolve(value, home)
                {
                    variables.insert(name.to_owned(), value);
                }
            }
        }
        variables
    }
}

/// The file with another `ExecStart=` and without the variable `without`. Every other line keeps its bytes.
pub(super) fn with_command(text: &str, exec_start: &str, without: &str) -> String {
    let unit = UnitFile::parse(text);
    let mut out: Vec<Option<String>> =
        text.split_inclusive('\n').map(|line| Some(line.to_owned())).collect();
    let mut written = false;
    for item in unit.assignments.iter().filter(|item| item.section == "Service") {
        let replacement = match item.key.as_str() {
            "ExecStart" if !written => {
                written = true;
                Some(format!("ExecStart={exec_start}\n"))
            }
            "ExecStart" => None,
            "Environment" if names(&item.value, without) => None,
            _ => continue,
        };
        let (first, last) = item.lines;
        for line in out.get_mut(first..=last).into_iter().flatten() {
            *line = None;
        }
        if let Some(line) = out.get_mut(first) {
            *line = replacement;
        }
    }
    out.into_iter().flatten().collect()
}

/// Whether an `Environment=` value sets this variable and no other.
fn names(value: &str, variable: &str) -> bool {
    matches!(&words::split(value).unwrap_or_default()[..], [word]
        if word.split_once('=').is_some_and(|(name, _)| name == variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "[Unit]\nDescription=x\n# ExecStart=/no\n[Service]\nExecStart=/node \\\n  # note\n  /dist/index.js \
        gateway\nEnvironment=A=1 \"B=two words\"\nEnvironment=OPENCLAW_WRAPPER=/w\nEnvironment=P=100%%\n[Install]\nWantedBy=default.target\n";

    #[test]
    fn reading() {
        let unit = UnitFile::parse(UNIT);
        let [exec] = unit.values("Service", "ExecStart")[..] else { panic!("one ExecStart") };
        assert_eq!(words::split(exec).unwrap(), ["/node", "/dist/index.js", "gateway"]);
        let environment = unit.environment("/h");
        let want = [("A", "1"), ("B", "two words"), ("OPENCLAW_WRAPPER", "/w"), ("P", "100%")];
        assert_eq!(environment, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let reset = UnitFile::parse("[Service]\nType=a\nExecStart=/a\nExecStart=\nExecStart=/b\n");
        assert_eq!(reset.values("Service", "ExecStart"), ["/b"]);
        assert!(reset.assigns("Service", "Type") && !reset.assigns("Unit", "Type"));
    }

    #[test]
    fn another_command() {
        let text = with_command(UNIT, "/a gateway", "OPENCLAW_WRAPPER");
        assert!(text.contains("[Service]\nExecStart=/a gateway\nEnvironment=A=1"), "{text}");
        assert!(!text.contains("OPENCLAW_WRAPPER") && !text.contains("index.js"), "{text}");
        assert!(text.contains("# ExecStart=/no"), "comments stay: {text}");
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(?s).{0,200}") {
            let _ = (UnitFile::parse(&text).environment("/h"), with_command(&text, "/a", "B"));
        }
    }
}
