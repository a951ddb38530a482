//! A testbed leaves nothing behind, however it ends.

#![expect(clippy::print_stdout, reason = "a test that runs itself again reads this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use weir_testbed::topology::{Direct, direct};
use weir_testbed::traffic::Serve;
use weir_testbed::{Place, Process, Testbed, sweep};

/// Everything that a testbed of this identity could leave, where it can be seen.
fn traces(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in ["/run", "/run/netns"] {
        for entry in fs::read_dir(directory)?.flatten() {
            found.push(entry.path().display().to_string());
        }
    }
    found.extend(
        fs::read_to_string("/proc/self/mounts")?
            .lines()
            .map(str::to_string),
    );
    for process in fs::read_dir("/proc")?.flatten() {
        // What has ended and was not waited for has a group still, but no program.
        if fs::read_link(process.path().join("exe")).is_ok() {
            let groups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            found.extend(groups.lines().map(str::to_string));
        }
    }
    found.retain(|trace| trace.contains(id));
    Ok(found)
}

/// A testbed with something of every kind in it.
fn furnished(name: &str) -> Result<(Testbed, Place, Process)> {
    let testbed = Testbed::new(name)?;
    let direct = direct(&testbed, "d")?;
    let serve = Serve {
        name: "s".into(),
        echo: vec![(Direct::SERVER[0], 80).into()],
        ..Serve::default()
    };
    let server = direct.server.serve(&serve)?;
    testbed.pod(&direct.server, "pod")?;
    fs::create_dir(testbed.bpffs().join("pins"))?;
    fs::write(testbed.directory().join("file"), "text")?;
    Ok((testbed, direct.server, server))
}

fn gone(id: &str, cgroup: &Path) -> Result<()> {
    let left = traces(id)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(!cgroup.exists(), "left behind: {}", cgroup.display());
    Ok(())
}

#[test]
fn removed_by_call() -> Result<()> {
    let (testbed, place, mut server) = furnished("call")?;
    let (id, cgroup) = (testbed.id().to_string(), place.cgroup().to_path_buf());
    // The directory, its mount, three namespaces with a mount each (or two, where /run is shared), a process.
    ensure!(traces(&id)?.len() >= 8, "{:?}", traces(&id)?);
    ensure!(cgroup.exists());
    ensure!(server.ended()?.is_none());
    testbed.remove()?;
    ensure!(server.ended()?.is_some(), "the server still runs");
    gone(&id, &cgroup)
}

#[test]
fn removed_by_a_panic() -> Result<()> {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (testbed, place, _server) = furnished("panic").expect("a testbed");
        send.send((testbed.id().to_string(), place.cgroup().to_path_buf()))
            .expect("sent");
        panic!("on purpose");
    });
    let (id, cgroup) = receive.recv()?;
    ensure!(thread.join().is_err());
    gone(&id, &cgroup)
}

/// The process that plays the owner is this test program again, asked for this test alone.
const OWNER: &str = "WEIR_TESTBED_TEST_OWNER";

#[test]
fn what_a_killed_owner_leaves_is_swept_and_what_a_living_one_has_stays() -> Result<()> {
    if std::env::var_os(OWNER).is_some() {
        return own_until_killed();
    }
    let (mine, place, _server) = furnished("alive")?;
    let name = "what_a_killed_owner_leaves_is_swept_and_what_a_living_one_has_stays";
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--exact", name, "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped());
    let mut owner = Process::spawn("owner", &mut command)?;
    let (id, cgroup) = announced(&mut owner)?;
    sweep()?;
    ensure!(
        !traces(&id)?.is_empty(),
        "the owner lives, and its testbed was taken away"
    );
    owner.kill9()?;
    ensure!(
        !traces(&id)?.is_empty() && cgroup.exists(),
        "killed with no chance to clean up, and yet it did"
    );
    sweep()?;
    gone(&id, &cgroup)?;
    ensure!(!traces(mine.id())?.is_empty());
    let (id, cgroup) = (mine.id().to_string(), place.cgroup().to_path_buf());
    drop(mine);
    gone(&id, &cgroup)
}

const ANNOUNCE: &str = "testbed: ";

fn own_until_killed() -> Result<()> {
    let (testbed, place, _server) = furnished("killed")?;
    println!("{ANNOUNCE}{} {}", testbed.id(), place.cgroup().display());
    loop {
        std::thread::park();
    }
}

fn announced(owner: &mut Process) -> Result<(String, PathBuf)> {
    use std::io::BufRead;
    let output = owner.child().stdout.take().context("output")?;
    for line in std::io::BufReader::new(output).lines() {
        if let Some((_, said)) = line?.split_once(ANNOUNCE) {
            let (id, cgroup) = said.split_once(' ').context("two words")?;
            return Ok((id.to_string(), PathBuf::from(cgroup)));
        }
    }
    anyhow::bail!("the owner said nothing")
}

#[test]
fn a_process_in_a_place_is_where_it_should_be() -> Result<()> {
    let testbed = Testbed::new("place")?;
    let node = testbed.host("node")?;
    let pod = testbed.pod(&node, "pod")?;
    let mut command = pod.command("sh");
    command
        .args([
            "-c",
            r#"readlink /proc/$$/ns/net; cat /proc/$$/cgroup; ls "$1""#,
            "sh",
        ])
        .arg(testbed.bpffs());
    fs::create_dir(testbed.bpffs().join("seen"))?;
    let output = String::from_utf8(command.output()?.stdout)?;
    let own = pod.run(|| fs::read_link("/proc/thread-self/ns/net"))??;
    ensure!(own != fs::read_link("/proc/self/ns/net")?);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.first().copied(), own.to_str());
    let group = format!("0::/{}/node/pod", testbed.id());
    ensure!(lines.contains(&group.as_str()), "{output}");
    assert_eq!(lines.last(), Some(&"seen"));
    testbed.remove()
}

#[test]
fn bad_names_are_refused() -> Result<()> {
    for name in ["", "a b", "../a", "twenty-five-letters-long-"] {
        ensure!(Testbed::new(name).is_err(), "{name:?}");
    }
    Ok(())
}
