//! The verbs, from the runtime's question to the answer it gets.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::CniError;
use crate::agent::Unreachable;
use crate::check::check;
use crate::config::{Config, Document};
use crate::deletions;
use crate::environment::Invocation;
use crate::error::code;
use crate::protocol::{self, Answer, Attached, AttachmentId, MAX_REQUEST, Pod, Request, Verb};
use crate::result::AddResult;
use crate::version::SpecVersion;

/// What the process leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub success: bool,
    /// A JSON object on one line, or nothing.
    pub stdout: String,
    /// For people.
    pub stderr: String,
}

/// Bytes of standard input at most.
const MAX_CONFIG: u64 = 4 << 20;

/// The agent answers an `ADD` when the pod's policy is in the kernel, for which it may be told to wait 110 s.
const ADD_WITHIN: Duration = Duration::from_secs(120);
const DEL_WITHIN: Duration = Duration::from_secs(30);
const CHECK_WITHIN: Duration = Duration::from_secs(30);
const GC_WITHIN: Duration = Duration::from_secs(60);
/// The kubelet asks every few seconds.
const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// The one network that the agent knows; `GC` speaks of no other.
pub const NETWORK: &str = "weir";

/// Serves one call. `variable` gives the environment; `ask` puts a request to the agent, as [`agent::ask`] does.
///
/// [`agent::ask`]: crate::agent::ask
pub fn run(
    variable: impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    ask: impl FnOnce(&Path, Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Outcome {
    let mut version = SpecVersion::LATEST.as_str().to_owned();
    // Who runs the plugin by hand, without the environment, is told so and is not waited for.
    let outcome = Invocation::read(variable).and_then(|invocation| {
        let document = read_stdin(stdin).and_then(|stdin| Document::decode(&stdin));
        if let Some(stated) = document.as_ref().ok().and_then(Document::stated_version) {
            version = stated.to_owned();
        }
        serve(invocation, document, &version, ask)
    });
    outcome.unwrap_or_else(|error| failure(&version, &error))
}

fn serve(
    invocation: Invocation,
    document: Result<Document, CniError>,
    version: &str,
    ask: impl FnOnce(&Path, Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    if invocation == Invocation::Version {
        return versions(version);
    }
    let config = document?.config()?;
    let ask = |request, within| ask(&config.socket, request, within);
    match invocation {
        Invocation::Add {
            container_id,
            netns,
            ifname,
            pod,
        } => add(&config, container_id, &netns, ifname, pod, ask),
        Invocation::Del { container_id, ifname } => {
            let attachment = AttachmentId { container_id, ifname };
            del(&config, attachment, ask)
        }
        Invocation::Check {
            container_id,
            netns,
            ifname,
        } => check_attachment(&config, container_id, &netns, ifname, ask),
        Invocation::Gc => gc(&config, ask),
        Invocation::Status => status(&config, ask),
        Invocation::Version => versions(version),
    }
}

fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    stdin
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::io_failure(format!("standard input: {error}")))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(CniError::new(
            code::DECODING_FAILURE,
            format!("the configuration on standard input has more than {MAX_CONFIG} bytes"),
        ));
    }
    Ok(bytes)
}

fn add(
    config: &Config,
    container_id: String,
    netns: &Path,
    ifname: String,
    pod: Pod,
    ask: impl FnOnce(Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    config.unsupported.clone().map_or(Ok(()), Err)?;
    if config.prev_result.is_some() {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            "prevResult: weir-cni makes the pod's interface, so it is the first plugin of its list",
        ));
    }
    check_netns(netns)?;
    let request = encode(Verb::Add {
        container_id,
        netns: netns.into(),
        ifname,
        pod,
    })?;
    let attached = attached(ask(request, ADD_WITHIN))?;
    let sandbox = netns.to_string_lossy();
    success(&AddResult::new(config.version, &sandbox, &attached))
}

/// An agent that answers with an error is there, and the runtime tries again. One that does not answer leaves the
/// address taken until it has read the note; that a pod's end waits for it would gain nothing.
fn del(
    config: &Config,
    attachment: AttachmentId,
    ask: impl FnOnce(Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    let request = encode(Verb::Del {
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
    })?;
    let unreachable = match ask(request, DEL_WITHIN) {
        Ok(answer) => return done(answer),
        Err(unreachable) => unreachable,
    };
    let directory = deletions::directory(&config.socket);
    deletions::leave(&directory, &attachment).map_err(|error| {
        CniError::try_again_later(unreachable.to_string()).with_details(format!(
            "no note for it could be left in {}: {error}",
            directory.display()
        ))
    })?;
    Ok(Outcome {
        success: true,
        stdout: String::new(),
        stderr: format!("{unreachable}; it will find a note in {}\n", directory.display()),
    })
}

fn check_attachment(
    config: &Config,
    container_id: String,
    netns: &Path,
    ifname: String,
    ask: impl FnOnce(Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    require(config, SpecVersion::V0_4_0, "CHECK")?;
    config.unsupported.clone().map_or(Ok(()), Err)?;
    let previous = config
        .prev_result
        .as_ref()
        .ok_or_else(|| CniError::new(code::INVALID_CONFIG, "prevResult: missing, and CHECK needs it"))?;
    check_netns(netns)?;
    let request = encode(Verb::Check {
        container_id,
        netns: netns.into(),
        ifname: ifname.clone(),
    })?;
    check(previous, &ifname, &attached(ask(request, CHECK_WITHIN))?)?;
    Ok(nothing_to_say())
}

fn gc(
    config: &Config,
    ask: impl FnOnce(Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    require(config, SpecVersion::V1_1_0, "GC")?;
    if config.name != NETWORK {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!(
                "name: {:?} is not {NETWORK:?}, the only network that weir-cni collects the garbage of",
                config.name
            ),
        ));
    }
    let valid = config.valid_attachments.clone().ok_or_else(|| {
        CniError::new(
            code::INVALID_CONFIG,
            "cni.dev/valid-attachments: missing, and GC would remove every attachment without it",
        )
    })?;
    let request = encode(Verb::Gc { valid })?;
    done(ask(request, GC_WITHIN).map_err(away)?)
}

fn status(
    config: &Config,
    ask: impl FnOnce(Vec<u8>, Duration) -> Result<Answer, Unreachable>,
) -> Result<Outcome, CniError> {
    require(config, SpecVersion::V1_1_0, "STATUS")?;
    config.unsupported.clone().map_or(Ok(()), Err)?;
    let answer = ask(encode(Verb::Status)?, STATUS_WITHIN)
        .map_err(|unreachable| CniError::new(code::NOT_AVAILABLE, unreachable.to_string()))?;
    done(answer)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions<'a> {
    cni_version: &'a str,
    supported_versions: [&'static str; SpecVersion::ALL.len()],
}

/// The version is the runtime's own, whether the plugin speaks it or not: the runtime asks to find out.
fn versions(version: &str) -> Result<Outcome, CniError> {
    success(&Versions {
        cni_version: version,
        supported_versions: SpecVersion::ALL.map(SpecVersion::as_str),
    })
}

fn require(config: &Config, least: SpecVersion, verb: &str) -> Result<(), CniError> {
    if config.version >= least {
        return Ok(());
    }
    Err(CniError::new(
        code::INCOMPATIBLE_VERSION,
        format!(
            "cniVersion: {} has no {verb}, which came with {least}",
            config.version
        ),
    ))
}

/// The namespace is there, and is not the one that the plugin was started in.
fn check_netns(netns: &Path) -> Result<(), CniError> {
    let is = fs::metadata(netns).map_err(|error| {
        CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_NETNS: {}: {error}", netns.display()),
        )
    })?;
    let own = fs::metadata("/proc/self/ns/net")
        .map_err(|error| CniError::io_failure(format!("/proc/self/ns/net: {error}")))?;
    if (is.dev(), is.ino()) == (own.dev(), own.ino()) {
        return Err(CniError::new(
            code::INVALID_NETNS,
            format!("CNI_NETNS: {} is the node's own namespace", netns.display()),
        ));
    }
    Ok(())
}

fn encode(verb: Verb) -> Result<Vec<u8>, CniError> {
    let line = protocol::line(&Request::new(verb))
        .map_err(|error| CniError::io_failure(format!("writing the request: {error}")))?;
    if line.len() as u64 > MAX_REQUEST {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!(
                "the request would have {} bytes, and {MAX_REQUEST} are the most",
                line.len()
            ),
        ));
    }
    Ok(line)
}

fn away(unreachable: Unreachable) -> CniError {
    CniError::try_again_later(unreachable.to_string())
}

fn attached(answer: Result<Answer, Unreachable>) -> Result<Attached, CniError> {
    match answer.map_err(away)? {
        Answer::Attached(attached) => Ok(attached),
        Answer::Failed(error) => Err(error),
        Answer::Done => Err(out_of_place()),
    }
}

fn done(answer: Answer) -> Result<Outcome, CniError> {
    match answer {
        Answer::Done => Ok(nothing_to_say()),
        Answer::Failed(error) => Err(error),
        Answer::Attached(_) => Err(out_of_place()),
    }
}

fn out_of_place() -> CniError {
    CniError::io_failure("the node agent answered another question than it was asked")
}

fn nothing_to_say() -> Outcome {
    Outcome {
        success: true,
        ..Outcome::default()
    }
}

fn success(result: &impl Serialize) -> Result<Outcome, CniError> {
    let text = serde_json::to_string(result)
        .map_err(|error| CniError::io_failure(format!("writing the result: {error}")))?;
    Ok(Outcome {
        success: true,
        stdout: text + "\n",
        stderr: String::new(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    cni_version: &'a str,
    #[serde(flatten)]
    error: &'a CniError,
}

/// Runtimes read the error from standard output; whoever runs the plugin by hand sees it too.
fn failure(version: &str, error: &CniError) -> Outcome {
    let failure = Failure {
        cni_version: version,
        error,
    };
    match serde_json::to_string(&failure) {
        Ok(text) => Outcome {
            success: false,
            stdout: text + "\n",
            stderr: String::new(),
        },
        Err(unwritable) => Outcome {
            success: false,
            stdout: String::new(),
            stderr: format!("{error}; {unwritable}\n"),
        },
    }
}

/// Writes what [`run`] says. Returns whether the process succeeded.
pub fn finish(outcome: &Outcome, mut stdout: impl io::Write, mut stderr: impl io::Write) -> bool {
    // Whoever does not read standard error misses nothing that changes the outcome.
    let _ = stderr.write_all(outcome.stderr.as_bytes());
    let written = stdout
        .write_all(outcome.stdout.as_bytes())
        .and_then(|()| stdout.flush());
    outcome.success && written.is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Call<'a> {
        command: &'a str,
        socket: &'a Path,
        extra: Value,
    }

    impl Call<'_> {
        fn run(&self, ask: impl FnOnce(&Path, Vec<u8>, Duration) -> Result<Answer, Unreachable>) -> Outcome {
            let mut config = json!({ "cniVersion": "1.1.0", "name": "weir", "socket": self.socket });
            for (key, value) in self.extra.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
            let variable = |name: &str| match name {
                "CNI_COMMAND" => Some(self.command.into()),
                "CNI_CONTAINERID" => Some("c1".into()),
                "CNI_IFNAME" => Some("eth0".into()),
                // A namespace, and not the network's.
                "CNI_NETNS" => Some("/proc/self/ns/uts".into()),
                "CNI_ARGS" => Some("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=8c7a".into()),
                _ => None,
            };
            run(variable, config.to_string().as_bytes(), ask)
        }
    }

    fn failed(code: u32, msg: &str) -> Outcome {
        failure("1.1.0", &CniError::new(code, msg))
    }

    #[test]
    fn an_agent_that_is_silent_finds_a_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let notes = dir.path().join("deletions");
        fs::create_dir(&notes).expect("created");
        let socket = dir.path().join("cni.sock");
        let call = Call {
            command: "DEL",
            socket: &socket,
            extra: json!({}),
        };
        let silent = |socket: &Path, _, within| {
            Err(Unreachable::Silent {
                socket: socket.into(),
                within,
            })
        };
        let unreachable = format!("the node agent at {} did not answer in 30 s", socket.display());
        let expected = Outcome {
            success: true,
            stdout: String::new(),
            stderr: format!("{unreachable}; it will find a note in {}\n", notes.display()),
        };
        assert_eq!(call.run(silent), expected);
        let attachment = AttachmentId {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(deletions::read(&notes).expect("read"), [attachment]);

        // Where no note can be left, the runtime has to come again.
        fs::remove_dir_all(&notes).expect("removed");
        fs::write(&notes, "").expect("written");
        let details = format!(
            "no note for it could be left in {}: Not a directory (os error 20)",
            notes.display()
        );
        let expected = CniError::new(11, unreachable).with_details(details);
        assert_eq!(call.run(silent), failure("1.1.0", &expected));
    }

    #[test]
    fn an_answer_to_another_question_is_no_success() {
        let out_of_place = failed(5, "the node agent answered another question than it was asked");
        let interface = protocol::Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:02".into(),
        };
        let attached = Answer::Attached(Attached {
            host: interface.clone(),
            pod: interface,
            mtu: 1500,
            addresses: Vec::new(),
        });
        let cases = [
            ("ADD", Answer::Done),
            ("CHECK", Answer::Done),
            ("DEL", attached.clone()),
            ("GC", attached.clone()),
            ("STATUS", attached),
        ];
        for (command, answer) in cases {
            let mut extra = json!({ "cni.dev/valid-attachments": [] });
            if command == "CHECK" {
                extra["prevResult"] = json!({});
            }
            let call = Call {
                command,
                socket: Path::new("/run/s"),
                extra,
            };
            assert_eq!(call.run(|_, _, _| Ok(answer)), out_of_place, "{command}");
        }
    }

    #[test]
    fn each_verb_waits_as_long_as_it_may() {
        for (command, seconds) in [
            ("ADD", 120),
            ("DEL", 30),
            ("CHECK", 30),
            ("GC", 60),
            ("STATUS", 5),
        ] {
            let mut extra = json!({ "cni.dev/valid-attachments": [] });
            if command == "CHECK" {
                extra["prevResult"] = json!({});
            }
            let call = Call {
                command,
                socket: Path::new("/run/s"),
                extra,
            };
            let mut waited = None;
            call.run(|_, _, within| {
                waited = Some(within);
                Ok(Answer::Done)
            });
            assert_eq!(waited, Some(Duration::from_secs(seconds)), "{command}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let ids =
            (0..30_000).map(|number| json!({ "containerID": format!("c{number:040}"), "ifname": "eth0" }));
        let call = Call {
            command: "GC",
            socket: Path::new("/run/s"),
            extra: json!({ "cni.dev/valid-attachments": ids.collect::<Vec<_>>() }),
        };
        let outcome = call.run(|_, _, _| Ok(Answer::Done));
        let bytes = 30_000 * r#"{"containerID":"c","ifname":"eth0"},"#.len() + 30_000 * 40;
        let around = "{\"version\":1,\"verb\":{\"GC\":{\"valid\":[]}}}\n".len() - 1;
        let msg = format!(
            "the request would have {} bytes, and 1048576 are the most",
            bytes + around
        );
        assert_eq!(outcome, failed(7, &msg));

        let endless = io::repeat(b' ');
        let outcome = run(|_| Some("STATUS".into()), endless, |_, _, _| Ok(Answer::Done));
        let msg = "the configuration on standard input has more than 4194304 bytes";
        assert_eq!(outcome, failed(6, msg));
    }

    #[test]
    fn a_result_that_nobody_could_read_is_no_success() {
        let outcome = versions("1.1.0").expect("a result");
        let mut written = Vec::new();
        assert!(finish(&outcome, &mut written, io::sink()));
        assert_eq!(written, outcome.stdout.as_bytes());
        let mut full: [u8; 3] = [0; 3];
        assert!(!finish(&outcome, &mut full[..], io::sink()));
        assert!(!finish(&failed(11, "later"), io::sink(), io::sink()));
    }
}
