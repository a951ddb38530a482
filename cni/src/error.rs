//! Errors as the CNI specification numbers them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a verb failed. It goes to the runtime as it is, and from there into the pod's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// 1 to 99 are the specification's, and 100 and up the plugin's own; see [`code`].
    pub code: u32,
    /// One sentence.
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// The numbers. All but [`DIFFERS`](code::DIFFERS) are those of the specification and of libcni.
pub mod code {
    /// The configuration is of a version that the plugin does not speak, or that does not have the verb.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The configuration has a key, or a value, that the plugin has no use for.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known; there is nothing to clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A variable of the environment is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading, writing, or talking to the kernel failed.
    pub const IO_FAILURE: u32 = 5;
    /// Standard input is no JSON object.
    pub const DECODING_FAILURE: u32 = 6;
    /// A key of the configuration is missing or wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not one that a pod can have.
    pub const INVALID_NETNS: u32 = 8;
    /// The same may succeed later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// `STATUS`: `ADD` cannot be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// `STATUS`: `ADD` cannot be served, and pods that run may lack connections.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// `CHECK`: what the pod has is not what the runtime was told.
    pub const DIFFERS: u32 = 100;
}

impl CniError {
    pub fn new(code: u32, msg: impl Into<String>) -> CniError {
        CniError {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    pub fn try_again_later(msg: impl Into<String>) -> CniError {
        CniError::new(code::TRY_AGAIN_LATER, msg)
    }

    pub fn unknown_container(msg: impl Into<String>) -> CniError {
        CniError::new(code::UNKNOWN_CONTAINER, msg)
    }

    pub fn io_failure(msg: impl Into<String>) -> CniError {
        CniError::new(code::IO_FAILURE, msg)
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}
