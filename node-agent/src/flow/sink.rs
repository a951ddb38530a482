//! Writes the policy log, on a thread of its own behind a bounded queue: whoever hands over records never waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flow::file::{Appended, FileSettings, LogFile};
use crate::flow::record::{Disposition, LossRecord, PolicyRecord};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSettings {
    pub file: FileSettings,
    /// How many records may wait.
    pub queue: usize,
    /// After how long a loss gets a line of its own where no record comes to tell it.
    pub idle: Duration,
    /// For such a line.
    pub node_name: String,
}

impl SinkSettings {
    pub fn new(file: FileSettings, node_name: String) -> Self {
        Self {
            file,
            queue: 2000,
            idle: Duration::from_secs(5),
            node_name,
        }
    }
}

/// The handle of the writing thread. Dropping it writes what waits and ends the thread.
#[derive(Debug)]
pub struct Sink {
    messages: Option<Sender<Message>>,
    /// How many records may wait.
    capacity: usize,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// What became of the records so far, in packets and connections (a folded record has its whole count), save
/// `written_*`, which are lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkCounts {
    pub written_allow: u64,
    pub written_deny: u64,
    /// Dropped because the queue was full.
    pub lost_queue: u64,
    /// Dropped because the file could not be written.
    pub lost_write: u64,
    pub write_errors: u64,
}

#[derive(Debug)]
enum Message {
    Records(Vec<PolicyRecord>),
    /// Answered when all that came before is in the file.
    Flush(SyncSender<()>),
}

/// Shared by the handle and the thread; both only add, but for `waiting`.
#[derive(Debug, Default)]
struct State {
    /// Records handed over, and neither written nor lost.
    waiting: AtomicUsize,
    /// Losses that no line has told yet.
    untold: AtomicU64,
    written_allow: AtomicU64,
    written_deny: AtomicU64,
    lost_queue: AtomicU64,
    lost_write: AtomicU64,
    write_errors: AtomicU64,
}

impl Sink {
    /// Starts the thread. A file that cannot be opened is tried again with each record.
    pub fn start(settings: SinkSettings) -> io::Result<Self> {
        let (sender, messages) = channel();
        let state = Arc::new(State::default());
        let writer = Writer {
            file: LogFile::new(settings.file),
            node_name: settings.node_name,
            state: Arc::clone(&state),
            seq: None,
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("policy-log".to_owned())
            .spawn(move || writer.run(&messages, settings.idle))?;
        Ok(Self {
            messages: Some(sender),
            capacity: settings.queue,
            state,
            thread: Some(thread),
        })
    }

    /// Hands over records; those that the queue has no room for are counted as lost.
    ///
    /// For one thread: two that send at the same time may go beyond the queue's size together.
    pub fn send(&self, mut records: Vec<PolicyRecord>) {
        let Some(messages) = &self.messages else { return };
        let room = self
            .capacity
            .saturating_sub(self.state.waiting.load(Ordering::Relaxed));
        let surplus = records.split_off(room.min(records.len()));
        self.lose(&surplus);
        if records.is_empty() {
            return;
        }
        self.state.waiting.fetch_add(records.len(), Ordering::Relaxed);
        if let Err(refused) = messages.send(Message::Records(records))
            && let Message::Records(records) = refused.0
        {
            self.lose(&records);
        }
    }

    fn lose(&self, records: &[PolicyRecord]) {
        let count = records.iter().map(|record| record.count).sum();
        self.state.lost_queue.fetch_add(count, Ordering::Relaxed);
        self.lost(count);
    }

    /// Takes note of records that were lost before they got here; the next line tells it.
    pub fn lost(&self, count: u64) {
        self.state.untold.fetch_add(count, Ordering::Relaxed);
    }

    pub fn counts(&self) -> SinkCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkCounts {
            written_allow: read(&self.state.written_allow),
            written_deny: read(&self.state.written_deny),
            lost_queue: read(&self.state.lost_queue),
            lost_write: read(&self.state.lost_write),
            write_errors: read(&self.state.write_errors),
        }
    }

    /// Waits until everything handed over before is in the file or counted as lost.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self
            .messages
            .as_ref()
            .is_some_and(|messages| messages.send(Message::Flush(done)).is_ok())
        {
            // An error means that the thread has ended, after which nothing is left to wait for.
            let _ = wait.recv();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.messages.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the policy log's thread panicked");
        }
    }
}

struct Writer {
    file: LogFile,
    node_name: String,
    state: Arc<State>,
    /// Number of the last line; `None` until the end of the log that an earlier agent left has been read.
    seq: Option<u64>,
    /// Whether the last write failed, so that a lasting failure is reported once.
    failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>, idle: Duration) {
        loop {
            match messages.recv_timeout(idle) {
                Ok(Message::Records(records)) => self.write_records(records),
                Ok(Message::Flush(done)) => {
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.tell_losses(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tell_losses();
    }

    fn write_records(&mut self, records: Vec<PolicyRecord>) {
        let mut lines: Vec<Line> = records.into_iter().map(Line::Record).collect();
        let written = self.write(&mut lines);
        let (written, lost) = lines.split_at(written);
        for disposition in written.iter().filter_map(Line::disposition) {
            let counter = match disposition {
                Disposition::Allow => &self.state.written_allow,
                Disposition::Deny => &self.state.written_deny,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let lost = lost.iter().map(Line::count).sum();
        self.state.lost_write.fetch_add(lost, Ordering::Relaxed);
        self.state.untold.fetch_add(lost, Ordering::Relaxed);
        self.state.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
    }

    fn tell_losses(&mut self) {
        if self.state.untold.load(Ordering::Relaxed) > 0 {
            let loss = LossRecord {
                node_name: self.node_name.clone(),
                timestamp: format!("{:.9}", Timestamp::now()),
                seq: 0,
                lost: 0,
            };
            self.write(&mut [Line::Loss(loss)]);
        }
    }

    /// Writes lines, the first of which tells the losses so far, with a second try on a freshly opened file. Returns
    /// how many are written.
    fn write(&mut self, lines: &mut [Line]) -> usize {
        let mut lost = self.state.untold.swap(0, Ordering::Relaxed);
        let mut written = 0;
        let mut result = Ok(());
        for _ in 0..2 {
            let appended = self.try_write(&mut lines[written..], lost);
            written += appended.lines;
            if appended.lines > 0 {
                lost = 0;
            }
            result = appended.result;
            if result.is_ok() {
                break;
            }
        }
        self.state.untold.fetch_add(lost, Ordering::Relaxed);
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the policy log is written again");
                }
            }
            Err(error) => {
                self.state.write_errors.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the policy log cannot be written; its records are counted as lost");
                }
            }
        }
        written
    }

    fn try_write(&mut self, lines: &mut [Line], lost: u64) -> Appended {
        let (last, texts) = match self.number(lines, lost) {
            Ok(numbered) => numbered,
            Err(error) => {
                return Appended {
                    lines: 0,
                    result: Err(error),
                };
            }
        };
        let appended = self.file.append(&texts, Timestamp::now());
        self.seq = Some(last + appended.lines as u64);
        appended
    }

    /// The number of the line before these, and their texts.
    fn number(&self, lines: &mut [Line], mut lost: u64) -> io::Result<(u64, Vec<String>)> {
        let last = match self.seq {
            Some(seq) => seq,
            None => last_seq(&self.file)?,
        };
        let texts: Result<_, _> = (last + 1..)
            .zip(lines)
            .map(|(seq, line)| line.text(seq, std::mem::take(&mut lost)))
            .collect();
        Ok((last, texts?))
    }
}

/// What a line of the log says.
#[expect(
    clippy::large_enum_variant,
    reason = "all but a few are records, which are not moved"
)]
enum Line {
    Record(PolicyRecord),
    /// Only that something was lost.
    Loss(LossRecord),
}

impl Line {
    fn text(&mut self, seq: u64, lost: u64) -> serde_json::Result<String> {
        match self {
            Self::Record(record) => {
                (record.seq, record.lost) = (seq, lost);
                serde_json::to_string(record)
            }
            Self::Loss(record) => {
                (record.seq, record.lost) = (seq, lost);
                serde_json::to_string(record)
            }
        }
    }

    fn disposition(&self) -> Option<Disposition> {
        match self {
            Self::Record(record) => Some(record.disposition),
            Self::Loss(_) => None,
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Record(record) => record.count,
            Self::Loss(_) => 0,
        }
    }
}

/// The number of the last line of the log; 0 where there is none, or none of ours.
fn last_seq(file: &LogFile) -> io::Result<u64> {
    #[derive(Serialize, Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let last = file
        .last_line()?
        .and_then(|line| serde_json::from_str::<Numbered>(&line).ok());
    Ok(last.map_or(0, |line| line.seq))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::flow::decode::tests::event;
    use crate::flow::enrich::tests::enrich;
    use crate::flow::names::tests::names;
    use crate::flow::reconcile::{Reconciled, reconcile};

    fn record(count: u64) -> PolicyRecord {
        PolicyRecord {
            count,
            ..enrich(&event(), &names()).0.remove(1)
        }
    }

    fn settings(path: PathBuf) -> SinkSettings {
        SinkSettings::new(FileSettings::new(path), "n1".to_owned())
    }

    fn read(path: &Path) -> Reconciled {
        reconcile(fs::read_to_string(path).expect("the log").lines())
    }

    #[test]
    fn lines_are_numbered_and_tell_what_was_lost_before_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log/policy_action.log");
        let sink = Sink::start(settings(path.clone())).expect("started");
        sink.send(vec![record(3)]);
        sink.flush();
        sink.lost(7);
        sink.send(vec![record(1)]);
        sink.flush();
        assert_eq!(
            sink.counts(),
            SinkCounts {
                written_deny: 2,
                ..SinkCounts::default()
            }
        );
        drop(sink);
        let expected = [
            PolicyRecord { seq: 1, ..record(3) },
            PolicyRecord {
                seq: 2,
                lost: 7,
                ..record(1)
            },
        ]
        .map(|record| serde_json::to_string(&record).expect("JSON") + "\n");
        assert_eq!(fs::read_to_string(&path).expect("the log"), expected.concat());

        let sink = Sink::start(settings(path.clone())).expect("started again");
        sink.send(vec![record(1)]);
        drop(sink);
        let read = read(&path);
        assert_eq!(
            (read.lines, read.first_seq, read.last_seq, read.gaps),
            (3, Some(1), Some(3), 0)
        );
    }

    #[test]
    fn a_loss_that_no_record_tells_gets_its_own_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("policy_action.log");
        let sink = Sink::start(settings(path.clone())).expect("started");
        sink.lost(5);
        drop(sink);
        let read = read(&path);
        assert_eq!(
            (read.lines, read.lost, read.unreadable, read.last_seq),
            (1, 5, 0, Some(1))
        );
    }

    #[test]
    fn what_cannot_be_written_is_told_when_it_can_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let blocked = directory.path().join("log");
        fs::write(&blocked, "a file where the directory should be").expect("written");
        let path = blocked.join("policy_action.log");
        let sink = Sink::start(settings(path.clone())).expect("started");
        sink.send(vec![record(3), record(1)]);
        sink.send(vec![record(1)]);
        sink.flush();
        assert_eq!(
            sink.counts(),
            SinkCounts {
                lost_write: 5,
                write_errors: 2,
                ..SinkCounts::default()
            }
        );
        fs::remove_file(&blocked).expect("removed");
        sink.send(vec![record(2)]);
        drop(sink);
        let read = read(&path);
        assert_eq!((read.lines, read.counted(), read.lost), (1, 2, 5));
    }

    #[test]
    fn a_full_queue_loses_and_does_not_block() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("policy_action.log");
        // A thread that cannot go on: its file is a pipe that nobody reads.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let sink = Sink::start(SinkSettings {
            queue: 2,
            ..settings(path.clone())
        })
        .expect("started");
        for _ in 0..100_000 {
            sink.send(vec![record(1)]);
        }
        let counts = sink.counts();
        assert!(counts.lost_queue > 90_000, "{counts:?}");
        fs::remove_file(&path).expect("removed");
        std::mem::forget(sink);
    }

    #[test]
    fn counts_and_losses_add_up_under_pressure() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("policy_action.log");
        let sink = Sink::start(SinkSettings {
            queue: 8,
            ..settings(path.clone())
        })
        .expect("started");
        for i in 0..20_000 {
            sink.send(vec![record(1 + i % 3)]);
            if i % 100 == 0 {
                sink.send(vec![record(1); 5]);
            }
        }
        let handed_over = (0..20_000).map(|i| 1 + i % 3).sum::<u64>() + 5 * 200;
        drop(sink);
        let read = read(&path);
        assert_eq!(
            (read.counted() + read.lost, read.unreadable, read.gaps),
            (handed_over, 0, 0)
        );
        assert!(read.lost > 0, "the queue was never full");
    }
}
