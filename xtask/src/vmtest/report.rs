//! What a machine said of itself, and the table of all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::archive::Check;

/// Begins the lines that the guest has for us.
pub(super) const MARK: &str = "weir-guest: ";

/// Programs that a packet of a pod can meet.
const MET: &[&str] = &["from_pod", "to_pod", "from_wire", "fast", "slow"];

/// One kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    pub(super) version: &'static str,
    release: String,
    /// Every program that was loaded, with the instructions that the verifier looked at, where the kernel counts them.
    programs: BTreeMap<String, Option<u32>>,
    /// How they were attached to interfaces.
    attached: Option<String>,
    /// Each check, whether it passed, and the seconds that it took; none for one that did not end.
    checks: Vec<(String, Option<(bool, f64)>)>,
}

impl Report {
    pub(super) fn of(version: &'static str, checks: &[Check], lines: &[String]) -> Self {
        let wanted = checks.iter().map(|check| check.name.clone());
        Self::of_lines(version, wanted, lines.iter().map(String::as_str))
    }

    fn of_lines<'a>(
        version: &'static str,
        wanted: impl Iterator<Item = String>,
        lines: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut report = Self {
            version,
            release: "did not start".to_owned(),
            programs: BTreeMap::new(),
            attached: None,
            checks: wanted.map(|name| (name, None)).collect(),
        };
        for line in lines.filter_map(|line| line.strip_prefix(MARK)) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["kernel", release] => report.release = release.to_owned(),
                ["program", name, verified] => {
                    report.programs.insert(name.to_owned(), verified.parse().ok());
                }
                ["attached", way] => report.attached = Some(way.to_owned()),
                ["check", name, word, seconds] => {
                    let result = (word == "passed", seconds.parse().unwrap_or_default());
                    report
                        .checks
                        .iter_mut()
                        .filter(|(check, _)| check == name)
                        .for_each(|check| check.1 = Some(result));
                }
                _ => {}
            }
        }
        report
    }

    pub(super) fn passed(&self) -> bool {
        !self.programs.is_empty()
            && self.attached.is_some()
            && self
                .checks
                .iter()
                .all(|(_, result)| matches!(result, Some((true, _))))
    }

    /// Over all that a packet can meet; `-` where the kernel does not count.
    fn instructions(&self) -> String {
        let met = MET.iter().map(|name| self.programs.get(*name).copied().flatten());
        let sum: Option<u32> = met.sum();
        sum.map_or("-".to_owned(), |sum| sum.to_string())
    }

    fn row(&self) -> [String; 6] {
        let checks = self.checks.iter().map(|(name, result)| match result {
            Some((true, seconds)) => format!("{name} ok ({seconds:.0} s)"),
            Some((false, _)) => format!("{name} FAILED"),
            None => format!("{name} did not end"),
        });
        [
            self.version.to_owned(),
            self.release.clone(),
            self.programs.len().to_string(),
            self.instructions(),
            self.attached.clone().unwrap_or_else(|| "-".to_owned()),
            checks.collect::<Vec<_>>().join(", "),
        ]
    }
}

/// One line a kernel, and one of headings; columns are as wide as what is in them.
pub(super) fn table(reports: &[Report]) -> String {
    let headings = [
        "kernel",
        "release",
        "loaded",
        "instructions",
        "attached by",
        "checks",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(reports.iter().map(Report::row));
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let wanted = ["programs", "demo"].map(str::to_owned);
        Report::of_lines("6.1", wanted.into_iter(), lines.iter().copied())
    }

    const WHOLE: &[&str] = &[
        "weir-guest: kernel 6.1.0-56-cloud-amd64",
        "weir-guest: program fast 1005",
        "weir-guest: program from_pod 23",
        "weir-guest: program from_wire 23",
        "weir-guest: program slow 6909",
        "weir-guest: program to_pod 22",
        "weir-guest: program clock 6",
        "weir-guest: attached clsact",
        "weir-guest: check programs passed 3.1",
        "something that the demo says",
        "weir-guest: check demo passed 35.0",
        "weir-guest: end",
    ];

    #[test]
    fn a_machine_that_passes() {
        let whole = report(WHOLE);
        assert!(whole.passed());
        assert_eq!(
            table(&[whole]),
            "kernel  release               loaded  instructions  attached by  checks\n\
             6.1     6.1.0-56-cloud-amd64  6       7982          clsact       programs ok (3 s), demo ok (35 s)\n"
        );
    }

    #[test]
    fn one_that_stops_on_the_way_does_not() {
        assert!(!report(&WHOLE[..9]).passed());
        assert!(!report(&[]).passed());
        let mut failed = WHOLE.to_vec();
        failed[10] = "weir-guest: check demo failed 1.0";
        assert!(!report(&failed).passed());
    }

    #[test]
    fn a_kernel_that_counts_no_instructions() {
        let mut lines = WHOLE.to_vec();
        lines[1] = "weir-guest: program fast -";
        assert_eq!(report(&lines).instructions(), "-");
    }
}
