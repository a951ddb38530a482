//! The thread between the ring buffer and the policy log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::flow::aggregate::AggregateSettings;
use crate::flow::file::FileSettings;
use crate::flow::names::Names;
use crate::flow::pipeline::{Outcome, Pipeline};
use crate::flow::sink::{Sink, SinkCounts, SinkSettings};
use crate::kernel::Ring;
use crate::metrics::{LossStage, Metrics};

/// How often the ring buffer is emptied. The programs don't wake the reader: that costs them more than the record.
const PERIOD: Duration = Duration::from_millis(20);

/// How the log is written; follows from the FlowLogPolicies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub aggregate: AggregateSettings,
    pub records_per_second: u32,
    pub file: FileSettings,
}

/// The running thread. Dropping it writes what is there and ends the thread.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    names: Mutex<Arc<Names>>,
    settings: Mutex<LogSettings>,
    counts: Mutex<SinkCounts>,
    kernel_lost: AtomicU64,
}

impl LogReader {
    /// `kernel_lost`: see [`set_kernel_lost`](Self::set_kernel_lost).
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(
        ring: Ring,
        settings: LogSettings,
        names: Names,
        metrics: Arc<Metrics>,
        kernel_lost: u64,
    ) -> Result<Self> {
        let pipeline = Pipeline::new(settings.aggregate, settings.records_per_second);
        let writer = Writer::start(&settings, &names.node_name, pipeline)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            names: Mutex::new(Arc::new(names)),
            settings: Mutex::new(settings),
            counts: Mutex::new(SinkCounts::default()),
            kernel_lost: AtomicU64::new(kernel_lost),
        });
        let reader = Reader {
            ring,
            writer,
            shared: Arc::clone(&shared),
            metrics,
            start: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("flow-events".to_owned())
            .spawn(move || reader.run())
            .context("starting the thread that reads flow events")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub fn set_names(&self, names: Names) {
        *locked(&self.shared.names) = Arc::new(names);
    }

    pub fn set_settings(&self, settings: LogSettings) {
        *locked(&self.shared.settings) = settings;
    }

    /// Tells how many records the kernel could not write, over all rules.
    pub fn set_kernel_lost(&self, total: u64) {
        self.shared.kernel_lost.store(total, Ordering::Relaxed);
    }

    /// Lines written and records lost by the sinks so far.
    pub fn counts(&self) -> SinkCounts {
        *locked(&self.shared.counts)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}

struct Reader {
    ring: Ring,
    writer: Writer,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    start: Instant,
}

impl Reader {
    fn run(mut self) {
        loop {
            let stop = self.shared.stop.load(Ordering::Acquire);
            self.follow_settings();
            self.read();
            *locked(&self.shared.counts) = self.writer.counts();
            if stop {
                self.writer.close();
                return;
            }
            std::thread::sleep(PERIOD);
        }
    }

    fn follow_settings(&mut self) {
        let settings = locked(&self.shared.settings).clone();
        if settings != self.writer.settings {
            let node_name = locked(&self.shared.names).node_name.clone();
            let pipeline = self
                .writer
                .pipeline
                .with_settings(settings.aggregate, settings.records_per_second);
            match Writer::start(&settings, &node_name, pipeline) {
                Ok(mut next) => {
                    next.earlier = self.writer.close();
                    self.writer = next;
                }
                Err(error) => tracing::warn!(%error, "the policy log keeps its former settings"),
            }
        }
    }

    fn read(&mut self) {
        let names = Arc::clone(&locked(&self.shared.names));
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let pipeline = &mut self.writer.pipeline;
        let mut outcome = Outcome::default();
        self.ring
            .drain(|bytes| outcome.extend(pipeline.take(now, bytes, &names)));
        outcome.losses += pipeline.kernel_lost(self.shared.kernel_lost.load(Ordering::Relaxed));
        outcome.extend(pipeline.tick(now));
        self.writer.write(outcome, &self.metrics);
    }
}

/// One pipeline and the file that it ends in.
struct Writer {
    settings: LogSettings,
    pipeline: Pipeline,
    sink: Sink,
    /// What the writers before this one did.
    earlier: SinkCounts,
}

impl Writer {
    fn start(settings: &LogSettings, node_name: &str, pipeline: Pipeline) -> Result<Self> {
        let sink = SinkSettings::new(settings.file.clone(), node_name.to_owned());
        Ok(Self {
            settings: settings.clone(),
            pipeline,
            sink: Sink::start(sink).context("starting the thread that writes the policy log")?,
            earlier: SinkCounts::default(),
        })
    }

    fn write(&self, outcome: Outcome, metrics: &Metrics) {
        let losses = outcome.losses;
        self.sink.lost(losses.total());
        self.sink.send(outcome.records);
        metrics.add_flow_records_lost(LossStage::Decode, losses.undecodable);
        metrics.add_flow_records_lost(LossStage::Limit, losses.over_budget);
        metrics.add_flow_unknown_rules(outcome.unknown_rules);
    }

    fn close(&mut self) -> SinkCounts {
        self.sink.send(self.pipeline.close());
        self.sink.flush();
        self.counts()
    }

    fn counts(&self) -> SinkCounts {
        let (a, b) = (self.earlier, self.sink.counts());
        SinkCounts {
            written_allow: a.written_allow + b.written_allow,
            written_deny: a.written_deny + b.written_deny,
            lost_queue: a.lost_queue + b.lost_queue,
            lost_write: a.lost_write + b.lost_write,
            write_errors: a.write_errors + b.write_errors,
        }
    }
}

/// The value is whole between any two statements, so a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
