//! Notes about attachments that were deleted while the agent was away.
//!
//! A note is an empty file named `CONTAINER:IFNAME`, in a directory beside the agent's socket; to make one and to
//! take it away are each one step, so there is no half a note. The agent makes the directory, and reads it when it
//! starts and again from time to time. It lies with the socket in memory: after a reboot of the node no
//! namespace is left, and the agent finds by itself what is gone.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::environment::{check_container_id, check_ifname};
use crate::protocol::AttachmentId;

/// How many notes there can be. A node has some hundred pods at most; a directory that has so many is one that no
/// agent reads any more.
pub const MAX_NOTES: usize = 4096;

/// Where the notes of an agent lie that listens at `socket`.
pub fn directory(socket: &Path) -> PathBuf {
    socket.with_file_name("deletions")
}

/// Leaves a note. Where there is no directory there was never an agent, or Weir was taken off the node: then there is
/// nothing that the note could free, and none is made.
pub fn leave(directory: &Path, attachment: &AttachmentId) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    if entries.take(MAX_NOTES).count() == MAX_NOTES {
        return Err(io::Error::other(format!("there are {MAX_NOTES} notes already")));
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(file_name(attachment)))?;
    Ok(())
}

/// All notes, in the order of their names. Files that are no note are left alone, and so is a directory that is not
/// there.
pub fn read(directory: &Path) -> io::Result<Vec<AttachmentId>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut notes = Vec::new();
    for entry in entries {
        notes.extend(entry?.file_name().to_str().and_then(parse));
    }
    notes.sort();
    Ok(notes)
}

/// Takes a note away, if it is there.
pub fn remove(directory: &Path, attachment: &AttachmentId) -> io::Result<()> {
    match fs::remove_file(directory.join(file_name(attachment))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Neither part can have a colon.
fn file_name(attachment: &AttachmentId) -> String {
    format!("{}:{}", attachment.container_id, attachment.ifname)
}

fn parse(name: &str) -> Option<AttachmentId> {
    let (container_id, ifname) = name.split_once(':')?;
    check_container_id(container_id).ok()?;
    check_ifname(ifname).ok()?;
    Some(AttachmentId {
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container_id: &str) -> AttachmentId {
        AttachmentId {
            container_id: container_id.into(),
            ifname: "eth0".into(),
        }
    }

    #[test]
    fn notes_are_left_read_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        for id in ["b", "a", "b"] {
            leave(dir.path(), &attachment(id)).expect("left");
        }
        fs::write(dir.path().join("README"), "no note").expect("written");
        assert_eq!(
            read(dir.path()).expect("read"),
            [attachment("a"), attachment("b")]
        );
        for _ in 0..2 {
            remove(dir.path(), &attachment("a")).expect("removed");
        }
        assert_eq!(read(dir.path()).expect("read"), [attachment("b")]);
    }

    #[test]
    fn without_a_directory_there_is_nothing_to_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let absent = dir.path().join("deletions");
        leave(&absent, &attachment("a")).expect("left");
        assert!(!absent.exists());
        assert_eq!(read(&absent).expect("read"), []);
    }

    #[test]
    fn the_longest_names_fit() {
        let dir = tempfile::tempdir().expect("a directory");
        let longest = AttachmentId {
            container_id: "c".repeat(200),
            ifname: "i".repeat(15),
        };
        leave(dir.path(), &longest).expect("left");
        assert_eq!(read(dir.path()).expect("read"), [longest]);
    }

    #[test]
    fn there_can_be_too_many() {
        let dir = tempfile::tempdir().expect("a directory");
        for number in 0..MAX_NOTES {
            fs::write(dir.path().join(number.to_string()), "").expect("written");
        }
        let error = leave(dir.path(), &attachment("a")).expect_err("full");
        assert_eq!(error.to_string(), "there are 4096 notes already");
    }
}
