//! The files that go beside the gateway's unit, filled in.

use super::words;

/// Name of the drop-in.
pub(super) const DROP_IN_NAME: &str = "50-tideover.conf";
/// Name of the unit that reports.
pub(super) const REPORT_UNIT_NAME: &str = "tideover-report@.service";

const DROP_IN: &str = include_str!("../../../units/50-tideover.conf");
const REPORT_UNIT: &str = include_str!("../../../units/tideover-report@.service");

/// The drop-in for a gateway with this entry script and these words from `gateway` on. `path` is the PATH of the unit
/// as it was: behind a wrapper the gateway puts node's directory last or leaves it out (2026.9.6), and the agent's
/// tools would find another node than before.
pub(super) fn drop_in(
    tideover: &str,
    entry: &str,
    gateway: &[String],
    path: Option<&str>,
) -> String {
    let mut exec = vec![tideover.to_owned(), entry.to_owned()];
    exec.extend(gateway.iter().cloned());
    let environment = path.map(|path| {
        let assignment = format!("PATH={path}").replace('%', "%%");
        format!("# As it was in the unit.\nEnvironment={}\n", words::quote_plain(&assignment))
    });
    DROP_IN
        .replace("@EXEC_START@", &words::join(&exec))
        .replace("@ENVIRONMENT@\n", &environment.unwrap_or_default())
}

/// The unit that `OnFailure=` names.
pub(super) fn report_unit(tideover: &str) -> String {
    REPORT_UNIT.replace("@TIDEOVER@", &words::join(&[tideover.to_owned()]))
}

/// Whether a drop-in or unit is one of ours, by its first line.
pub(super) fn is_ours(text: &str) -> bool {
    text.starts_with("# Written by `tideover install`")
}

#[cfg(test)]
mod tests {
    use super::super::unit_file::UnitFile;
    use super::*;

    #[test]
    fn the_files_are_filled_in() {
        let gateway = ["gateway", "--port", "1"].map(str::to_owned);
        let text =
            drop_in("/a b/tideover", "/o/dist/index.js", &gateway, Some("/n:/usr/bin 1:$x%"));
        assert!(is_ours(&text), "{text}");
        let unit = UnitFile::parse(&text);
        let exec = unit.values("Service", "ExecStart");
        assert_eq!(exec, ["\"/a b/tideover\" /o/dist/index.js gateway --port 1"]);
        assert_eq!(unit.values("Service", "Type"), ["notify"]);
        assert_eq!(unit.values("Unit", "OnFailure"), ["tideover-report@%n.service"]);
        let report = report_unit("/t/tideover");
        assert!(is_ours(&report) && !report.contains("@TIDEOVER@"), "{report}");
        assert_eq!(
            unit.environment("/h").get("PATH").map(String::as_str),
            Some("/n:/usr/bin 1:$x%")
        );
        let without = drop_in("/t", "/e/index.js", &gateway, None);
        assert!(!text.contains("@E") && !without.contains("@E") && !without.contains("PATH="));
    }
}
