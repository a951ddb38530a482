//! Keeps a node's programs running, and reaps what others leave behind, as a PID 1 must.

use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process;

/// Between two looks at the programs.
const INTERVAL: Duration = Duration::from_millis(50);

/// Before a program that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// A program that is to run always.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) words: Vec<String>,
    pub(super) log: PathBuf,
    /// Started only once this file is there.
    pub(super) after: Option<PathBuf>,
}

enum State {
    /// To be started from then on.
    Due(Instant),
    Running(Pid),
}

/// Does not return.
pub(super) fn supervise(services: &[Service]) -> Result<()> {
    let mut states: Vec<State> = services.iter().map(|_| State::Due(Instant::now())).collect();
    loop {
        for (service, state) in services.iter().zip(&mut states) {
            let ready = service.after.as_ref().is_none_or(|file| file.exists());
            if matches!(state, State::Due(when) if ready && *when <= Instant::now()) {
                *state = start(service);
            }
        }
        while let Some(ended) = reap()? {
            for (service, state) in services.iter().zip(&mut states) {
                if matches!(state, State::Running(pid) if *pid == ended) {
                    eprintln!("{} ended", service.words[0]);
                    *state = State::Due(Instant::now() + PAUSE);
                }
            }
        }
        sleep(INTERVAL);
    }
}

fn start(service: &Service) -> State {
    let mut command = Command::new(&service.words[0]);
    command.args(&service.words[1..]);
    let child = process::log_to(&mut command, &service.log)
        .and_then(|command| command.spawn().map_err(anyhow::Error::from));
    match child {
        // The child is not waited for by its handle: `reap` waits for all.
        Ok(child) => State::Running(Pid::from_raw(child.id().cast_signed())),
        Err(error) => {
            eprintln!("{}: {error:#}", service.words[0]);
            State::Due(Instant::now() + PAUSE)
        }
    }
}

/// A child that has ended, whoever started it.
fn reap() -> Result<Option<Pid>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(status.pid()),
        Err(errno) => Err(errno.into()),
    }
}
