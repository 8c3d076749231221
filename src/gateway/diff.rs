//! Showing a change before it is made.

/// Most pairs of lines that are compared; beyond it only the common beginning and end are found.
const PAIRS_MAX: usize = 4_000_000;

/// The lines that differ between two texts: `-` for old, `+` for new, without context, each group under the line at
/// which it begins.
///
/// OpenClaw's own configuration is never shown this way: its lines may hold secrets.
pub(super) fn lines(before: Option<&str>, after: Option<&str>) -> String {
    let old: Vec<&str> = before.unwrap_or_default().lines().collect();
    let new: Vec<&str> = after.unwrap_or_default().lines().collect();
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let tail = tail.min(old.len().min(new.len()) - head);
    let old = old.get(head..old.len() - tail).unwrap_or_default();
    let new = new.get(head..new.len() - tail).unwrap_or_default();
    let mut text = String::new();
    let mut next = 0;
    for (sign, line, at) in script(old, new) {
        if text.is_empty() || at != next {
            text.push_str(&format!("@@ line {} @@\n", head + at + 1));
        }
        text.push_str(&format!("{sign}{line}\n"));
        next = if sign == '-' { at + 1 } else { at };
    }
    if text.is_empty() { format!("@@ line {} @@\n", head + 1) } else { text }
}

/// Removed and added lines with their place in the old text.
fn script<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str, usize)> {
    let common =
        if old.len().saturating_mul(new.len()) > PAIRS_MAX { Vec::new() } else { common(old, new) };
    let mut script = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    for (next_old, next_new) in common.into_iter().chain([(old.len(), new.len())]) {
        let removed = old.iter().enumerate().take(next_old).skip(at_old);
        script.extend(removed.map(|(at, line)| ('-', *line, at)));
        script.extend(new.iter().take(next_new).skip(at_new).map(|line| ('+', *line, next_old)));
        (at_old, at_new) = (next_old + 1, next_new + 1);
    }
    script
}

/// The pairs of a longest common subsequence.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    let get =
        |table: &[u32], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or_default();
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let value = if a == b {
                get(&longest, i + 1, j + 1) + 1
            } else {
                get(&longest, i + 1, j).max(get(&longest, i, j + 1))
            };
            if let Some(cell) = longest.get_mut(i * width + j) {
                *cell = value;
            }
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
        if a == b {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if get(&longest, i + 1, j) >= get(&longest, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
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
            (
                Some("a\nb\nc\nd\ne"),
                Some("a\nB\nc\nd\nE"),
                "@@ line 2 @@\n-b\n+B\n@@ line 5 @@\n-e\n+E\n",
            ),
            (Some("x\na\ny"), Some("a"), "@@ line 1 @@\n-x\n@@ line 3 @@\n-y\n"),
        ];
        for (before, after, want) in table {
            assert_eq!(lines(before, after), want);
        }
    }
}
