//! Versions of the CNI specification.

use std::fmt;

/// A version that the plugin speaks, in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    V0_3_1,
    /// Brought `CHECK`.
    V0_4_0,
    /// Took `version` out of the addresses of a result.
    V1_0_0,
    /// Brought `GC` and `STATUS`, and more keys in a result.
    V1_1_0,
}

impl SpecVersion {
    pub const ALL: [SpecVersion; 4] = [
        SpecVersion::V0_3_1,
        SpecVersion::V0_4_0,
        SpecVersion::V1_0_0,
        SpecVersion::V1_1_0,
    ];

    pub const LATEST: SpecVersion = SpecVersion::V1_1_0;

    /// `None` for a version that the plugin does not speak.
    pub fn parse(text: &str) -> Option<SpecVersion> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            SpecVersion::V0_3_1 => "0.3.1",
            SpecVersion::V0_4_0 => "0.4.0",
            SpecVersion::V1_0_0 => "1.0.0",
            SpecVersion::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
