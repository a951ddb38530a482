//! What the agent tells in its own log, which the settings can change while it runs.

use anyhow::{Context as _, Result};
use tracing_subscriber::reload::Handle;
use tracing_subscriber::{EnvFilter, Registry};
use weir_api::dataplane_config::LogLevel;

/// The filter of the log that runs.
#[derive(Debug)]
pub struct LogFilter {
    handle: Handle<EnvFilter, Registry>,
    /// What the agent was started with.
    started_with: String,
    level: Option<LogLevel>,
}

impl LogFilter {
    #[must_use]
    pub fn new(handle: Handle<EnvFilter, Registry>, started_with: String) -> Self {
        Self {
            handle,
            started_with,
            level: None,
        }
    }

    /// `None` goes back to what the agent was started with.
    ///
    /// # Errors
    ///
    /// If there is no log any more.
    pub fn set(&mut self, level: Option<LogLevel>) -> Result<()> {
        if level != self.level {
            let directives = match level {
                Some(level) => directive(level),
                None => self.started_with.as_str(),
            };
            let filter = EnvFilter::try_new(directives).context("making the log's filter")?;
            self.handle.reload(filter).context("changing the log's filter")?;
            self.level = level;
        }
        Ok(())
    }
}

/// Of the libraries, no more than what they find worth a note.
fn directive(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "info,weir_agent=debug",
    }
}
