//! Showing a change before it is made.

/// The lines that differ between two texts: `-` for old, `+` for new, without context.
///
/// A plain comparison of the common beginning and end is enough for the plugin's small files, and
/// the configuration is never shown this way (its lines may hold secrets).
pub(super) fn lines(before: Option<&str>, after: Option<&str>) -> String {
    let old: Vec<&str> = before.unwrap_or_default().lines().collect();
    let new: Vec<&str> = after.unwrap_or_default().lines().collect();
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let tail = tail.min(old.len().min(new.len()) - head);
    let mut text = format!("@@ line {} @@\n", head + 1);
    for (sign, lines) in [('-', &old), ('+', &new)] {
        for line in lines.get(head..lines.len() - tail).unwrap_or_default() {
            text.push_str(&format!("{sign}{line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let table = [
            (Some("a\nb\nc"), Some("a\nx\nc"), "@@ line 2 @@\n-b\n+x\n"),
            (None, Some("a\nb\n"), "@@ line 1 @@\n+a\n+b\n"),
            (Some("a\n"), None, "@@ line 1 @@\n-a\n"),
            (Some("a\na"), Some("a\na\na"), "@@ line 3 @@\n+a\n"),
            (Some("a"), Some("a"), "@@ line 2 @@\n"),
        ];
        for (before, after, want) in table {
            assert_eq!(lines(before, after), want);
        }
    }
}
