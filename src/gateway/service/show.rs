//! A plan as people and programs read it.

use super::super::diff;
use super::super::launch::EnvSnapshot;
use super::act::gateway_call;
use super::files::Change;
use super::launcher;
use super::plan::{Plan, Step};

/// The files a plan changes.
pub fn files_of(plan: &Plan) -> Vec<String> {
    let path = |step: &Step| match step {
        Step::File(change) => Some(change.path.display().to_string()),
        Step::Plugin | Step::Systemctl(_) | Step::Gateway(_) => None,
    };
    plan.steps.iter().filter_map(path).collect()
}

/// The commands a plan runs.
pub fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().filter_map(|step| command(plan, step)).collect()
}

fn command(plan: &Plan, step: &Step) -> Option<String> {
    match step {
        Step::Systemctl(words) => Some(format!("systemctl --user {}", words.join(" "))),
        Step::Gateway(words) => {
            Some(gateway_call(&plan.command, words, &EnvSnapshot::new()).line())
        }
        Step::File(_) | Step::Plugin => None,
    }
}

/// Every step in its order, files as diffs. `plugin` describes the plugin's own files.
pub fn describe(plan: &Plan, plugin: &str) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        match step {
            Step::File(change) => text.push_str(&file(change)),
            Step::Plugin => text.push_str(&format!("{plugin}\n")),
            Step::Systemctl(_) => {
                text.push_str(&format!("$ {}\n\n", command(plan, step).unwrap_or_default()));
            }
            Step::Gateway(_) => {
                text.push_str(&format!("$ {}\n", command(plan, step).unwrap_or_default()));
                if !plan.unit_diff.is_empty() {
                    text.push_str(&format!("which rewrites {}:\n{}", plan.unit, plan.unit_diff));
                }
                text.push('\n');
            }
        }
    }
    text
}

fn file(change: &Change) -> String {
    let before = change.before.as_ref().map(|content| safe(&content.text));
    let after = change.after.as_ref().map(|content| safe(&content.text));
    let what = match (&before, &after) {
        (None, Some(_)) => " (new)",
        (Some(_), None) => " (removed)",
        (Some(_), Some(_)) | (None, None) => "",
    };
    format!(
        "{}{what}\n{}\n",
        change.path.display(),
        diff::lines(before.as_deref(), after.as_deref())
    )
}

/// Text without the values of a unit's variables and of options that name a secret.
fn safe(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", safe_line(line))).collect()
}

fn safe_line(line: &str) -> String {
    if let Some(rest) = line.strip_prefix("Environment=") {
        let name = rest.split_once('=').map_or("", |(name, _)| name);
        return format!("Environment={name}=…");
    }
    match line.strip_prefix("ExecStart=") {
        Some(rest) => {
            let words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
            format!("ExecStart={}", launcher::shown(&words).join(" "))
        }
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::Content;
    use super::*;

    #[test]
    fn secrets_of_a_unit_are_not_shown() {
        let content = |text: &str| Some(Content { text: text.to_owned(), mode: 0o600 });
        let change = Change {
            path: "/u".into(),
            before: content(
                "[Service]\nExecStart=/n gateway --token abc\nEnvironment=OPENCLAW_GATEWAY_TOKEN=abc\n",
            ),
            after: content("[Service]\nExecStart=/w gateway\nEnvironment=\"A=abc\"\n"),
        };
        let text = file(&change);
        assert!(!text.contains("abc"), "{text}");
        assert!(
            text.contains("-ExecStart=/n gateway --token ***\n")
                && text.contains("+ExecStart=/w gateway\n")
        );
    }
}
