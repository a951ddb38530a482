//! Asking the agent over its socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::protocol::{Answer, MAX_ANSWER};

/// Why there is no answer. The request may have been carried out all the same.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("the node agent is away: {}: {source}", socket.display())]
    Away { socket: PathBuf, source: io::Error },
    #[error("the node agent at {} did not answer in {} s", socket.display(), within.as_secs_f32())]
    Silent { socket: PathBuf, within: Duration },
    #[error("the node agent at {} broke off: {source}", socket.display())]
    BrokeOff { socket: PathBuf, source: io::Error },
    #[error("the node agent at {} gave an answer that this plugin does not understand: {source}", socket.display())]
    Unintelligible {
        socket: PathBuf,
        source: serde_json::Error,
    },
}

/// Sends a request, a line as [`protocol::line`](crate::protocol::line) makes it, and reads the answer.
///
/// `within` is for all of it: connecting to a Unix socket whose listener does not accept waits without end, and the
/// standard library has no limit for that, so a thread does it, which ends with the process at the latest.
pub fn ask(socket: &Path, request: Vec<u8>, within: Duration) -> Result<Answer, Unreachable> {
    let (send, receive) = mpsc::channel();
    let path = socket.to_owned();
    let thread = thread::Builder::new().spawn(move || {
        // The receiver is gone once the time is over.
        let _ = send.send(exchange(&path, &request));
    });
    if let Err(source) = thread {
        return Err(Unreachable::Away {
            socket: socket.into(),
            source,
        });
    }
    match receive.recv_timeout(within) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Unreachable::Silent {
            socket: socket.into(),
            within,
        }),
    }
}

fn exchange(socket: &Path, request: &[u8]) -> Result<Answer, Unreachable> {
    let mut stream = UnixStream::connect(socket).map_err(|source| Unreachable::Away {
        socket: socket.into(),
        source,
    })?;
    // An agent that refuses a request before it has read it answers all the same.
    let sent = stream.write_all(request);
    let broke_off = |source| Unreachable::BrokeOff {
        socket: socket.into(),
        source,
    };
    let mut line = Vec::new();
    let read = BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut line);
    match (sent, read) {
        (Err(error), _) | (Ok(()), Err(error)) if line.is_empty() => return Err(broke_off(error)),
        _ if line.is_empty() => return Err(broke_off(io::ErrorKind::UnexpectedEof.into())),
        _ => {}
    }
    serde_json::from_slice(&line).map_err(|source| Unreachable::Unintelligible {
        socket: socket.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;
    use crate::protocol::{Request, Verb, line};

    fn request() -> Vec<u8> {
        line(&Request::new(Verb::Status)).expect("a line")
    }

    /// The agent reads a request and writes `answer`. Returns what was read and what the plugin took.
    fn against(answer: &'static [u8]) -> (Vec<u8>, Result<Answer, String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bound");
        let agent = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut read = Vec::new();
            BufReader::new(&stream)
                .read_until(b'\n', &mut read)
                .expect("a line");
            stream.write_all(answer).expect("written");
            read
        });
        let result = ask(&socket, request(), Duration::from_secs(10));
        let place = socket.display().to_string();
        let result = result.map_err(|error| error.to_string().replace(&place, "SOCKET"));
        (agent.join().expect("joined"), result)
    }

    #[test]
    fn brings_the_answer() {
        assert_eq!(against(b"\"done\"\n"), (request(), Ok(Answer::Done)));
    }

    #[test]
    fn tells_an_answer_that_broke_off_from_one_that_makes_no_sense() {
        let expected = "the node agent at SOCKET broke off: unexpected end of file";
        assert_eq!(against(b"").1, Err(expected.to_owned()));
        let expected = "the node agent at SOCKET gave an answer that this plugin does not understand: unknown variant \
                        `what`, expected one of `attached`, `done`, `failed` at line 1 column 6";
        assert_eq!(against(b"\"what\"\n").1, Err(expected.to_owned()));
    }

    #[test]
    fn an_agent_that_is_away_is_known_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let start = Instant::now();
        let absent = ask(&socket, request(), Duration::from_secs(60)).expect_err("nobody");
        assert!(matches!(absent, Unreachable::Away { .. }), "{absent}");
        drop(UnixListener::bind(&socket).expect("bound"));
        let stale = ask(&socket, request(), Duration::from_secs(60)).expect_err("nobody");
        assert!(matches!(stale, Unreachable::Away { .. }), "{stale}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn an_agent_that_is_silent_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let _listener = UnixListener::bind(&socket).expect("bound");
        let silent = ask(&socket, request(), Duration::from_millis(50)).expect_err("silence");
        assert_eq!(
            silent.to_string(),
            format!("the node agent at {} did not answer in 0.05 s", socket.display())
        );
    }
}
