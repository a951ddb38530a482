//! What is in an image's only layer.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// Files by their paths without a leading slash. All belong to root, and are as old as can be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder { mode: u32 },
    Bytes { mode: u32, content: Vec<u8> },
    Copy { mode: u32, of: PathBuf },
    Link { target: String },
}

impl Tree {
    /// A folder, which replaces what is at that path.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Folder { mode });
    }

    /// A text file.
    pub fn text(&mut self, path: &str, content: &str) {
        let content = content.as_bytes().to_vec();
        self.put(path, Entry::Bytes { mode: 0o644, content });
    }

    /// A file of this machine, read when the image is made.
    pub fn copy(&mut self, path: &str, of: impl Into<PathBuf>, mode: u32) {
        self.put(path, Entry::Copy { mode, of: of.into() });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        let target = target.to_owned();
        self.put(path, Entry::Link { target });
    }

    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(key(path))
    }

    /// The folders on the way that are not there yet come with it.
    fn put(&mut self, path: &str, entry: Entry) {
        let path = key(path);
        let ancestors = path.match_indices('/').map(|(at, _)| &path[..at]);
        for ancestor in ancestors {
            self.entries
                .entry(ancestor.to_owned())
                .or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// One line an entry, which differs when the entry does.
    ///
    /// # Errors
    /// A file to be copied is not there.
    pub fn contents(&self) -> Result<String> {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            let what = match entry {
                Entry::Folder { mode } => format!("folder {mode:o}"),
                Entry::Bytes { mode, content } => format!("file {mode:o} {}", content.escape_ascii()),
                Entry::Copy { mode, of } => {
                    let metadata = fs::metadata(of).with_context(|| of.display().to_string())?;
                    let (size, second) = (metadata.len(), metadata.mtime());
                    format!("copy {mode:o} {} {size} {second}", of.display())
                }
                Entry::Link { target } => format!("link {target}"),
            };
            text.push_str(&format!("{path} {what}\n"));
        }
        Ok(text)
    }

    /// Writes the layer.
    ///
    /// # Errors
    /// A file cannot be read, or the layer not be written.
    pub fn write(&self, to: impl Write) -> Result<()> {
        let mut builder = Builder::new(to);
        for (path, entry) in &self.entries {
            append(&mut builder, path, entry).with_context(|| path.clone())?;
        }
        builder.finish().context("writing a layer")
    }
}

fn key(path: &str) -> &str {
    path.trim_matches('/')
}

fn append<W: Write>(builder: &mut Builder<W>, path: &str, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Folder { mode } => {
            let mut header = header(EntryType::Directory, *mode, 0);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Entry::Bytes { mode, content } => {
            let mut header = header(EntryType::Regular, *mode, content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice())?;
        }
        Entry::Copy { mode, of } => append_file(builder, path, *mode, of)?,
        Entry::Link { target } => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            builder.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// Adds a file of this machine to an archive.
pub(super) fn append_file<W: Write>(
    builder: &mut Builder<W>,
    path: &str,
    mode: u32,
    of: &Path,
) -> Result<()> {
    let file = fs::File::open(of).with_context(|| format!("opening {}", of.display()))?;
    let size = file.metadata()?.len();
    let mut header = header(EntryType::Regular, mode, size);
    builder
        .append_data(&mut header, path, file)
        .with_context(|| format!("copying {}", of.display()))
}

/// With neither the time nor the user of this build, so that the same files make the same image.
pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_brings_the_folders_on_its_way() {
        let mut tree = Tree::default();
        tree.folder("/tmp", 0o1777);
        tree.text("/tmp/a/b", "x\n");
        tree.link("bin/sh", "busybox");
        assert_eq!(
            tree.contents().expect("nothing is copied"),
            "bin folder 755\n\
             bin/sh link busybox\n\
             tmp folder 1777\n\
             tmp/a folder 755\n\
             tmp/a/b file 644 x\\n\n"
        );
    }
}
