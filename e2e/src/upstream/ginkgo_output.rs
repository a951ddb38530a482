//! What ginkgo says while it runs, of which only the ends of specs are of interest.

/// How ginkgo begins the line of a spec's end when it ran, and when it left itself out. The spec's name is on the next
/// line.
const RAN: &str = "•";
const LEFT_ITSELF_OUT: &str = "S [SKIPPED]";

/// Ginkgo's verbose output, line by line.
#[derive(Debug, Default)]
pub(super) struct GinkgoOutput {
    ended: usize,
    /// Of the spec whose name comes next.
    outcome: Option<String>,
}

impl GinkgoOutput {
    /// Takes the next line. What there is to tell, once a spec has ended.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        if let Some(outcome) = self.outcome.take() {
            self.ended += 1;
            return Some(format!("{outcome} {line}"));
        }
        if line.starts_with(LEFT_ITSELF_OUT) {
            self.outcome = Some("not run:".to_owned());
        } else if let Some(rest) = line.strip_prefix(RAN) {
            self.outcome = Some(outcome(rest));
        }
        None
    }

    /// How many specs have.
    pub(super) fn ended(&self) -> usize {
        self.ended
    }
}

/// Of what follows the mark: `[2.707 seconds]`, or `[FAILED] [30.100 seconds]`.
fn outcome(rest: &str) -> String {
    let mut words = rest
        .split(['[', ']'])
        .map(str::trim)
        .filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some(word), Some(time)) => format!("{word} ({time})"),
        (Some(time), None) => format!("passed ({time})"),
        (None, _) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_each_spec_that_ends() {
        let said = "\
Will run 3 of 3220 specs
------------------------------
[SynchronizedBeforeSuite] PASSED [0.641 seconds]
[SynchronizedBeforeSuite]
------------------------------
• [2.707 seconds]
[sig-network] Netpol a
k8s.io/kubernetes/test/e2e/network/netpol/network_policy.go:242
------------------------------
• [FAILED] [30.100 seconds]
[sig-network] Netpol [It] b
------------------------------
S [SKIPPED] [0.012 seconds]
[sig-network] Netpol [It] c
";
        let mut output = GinkgoOutput::default();
        let told: Vec<String> = said.lines().filter_map(|line| output.take(line)).collect();
        assert_eq!(
            told,
            [
                "passed (2.707 seconds) [sig-network] Netpol a",
                "FAILED (30.100 seconds) [sig-network] Netpol [It] b",
                "not run: [sig-network] Netpol [It] c",
            ]
        );
        assert_eq!(output.ended(), 3);
    }
}
