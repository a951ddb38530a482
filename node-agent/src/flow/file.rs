//! A file that lines are appended to, and that moves aside when it is full.
//!
//! A full `policy_action.log` becomes `policy_action-2026-01-02T03-04-05.678.log`; the oldest such files go. A line
//! is written whole or not at all, and every failure is reported: a record that did not reach the disk must be
//! counted as lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

#[derive(Debug)]
pub struct LogFile {
    settings: FileSettings,
    open: Option<Open>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    pub path: PathBuf,
    /// The file is moved aside before a line that would make it longer than this.
    pub max_bytes: u64,
    /// How many files that were moved aside are kept.
    pub max_files: usize,
}

impl FileSettings {
    /// Size and number as GKE has them.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_bytes: 10_000_000,
            max_files: 5,
        }
    }
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Device and inode, by which a file that somebody else moved away is noticed.
    id: (u64, u64),
}

/// What became of lines that were to be appended.
#[derive(Debug)]
pub struct Appended {
    /// How many of them, from the first, are in the file.
    pub lines: usize,
    /// Why not all of them are.
    pub result: io::Result<()>,
}

/// As far as the last line is looked for, from the end.
const TAIL: u64 = 64 * 1024;

impl LogFile {
    pub fn new(settings: FileSettings) -> Self {
        Self { settings, open: None }
    }

    /// Appends lines, each with a line feed, in as few writes as there are files to write them to. After an error the
    /// next call opens the file anew.
    pub fn append(&mut self, lines: &[String], now: Timestamp) -> Appended {
        let mut written = 0;
        let result = loop {
            if written == lines.len() {
                break Ok(());
            }
            match self.append_to_one_file(&lines[written..], now) {
                Ok(count) => written += count,
                Err(error) => break Err(error),
            }
        };
        Appended {
            lines: written,
            result,
        }
    }

    /// Appends as many of the lines as the file has room for, at least one. Returns how many.
    fn append_to_one_file(&mut self, lines: &[String], now: Timestamp) -> io::Result<usize> {
        let mut open = self.opened()?;
        let mut count = self.fitting(lines, open.size);
        if count == 0 && open.size > 0 {
            self.move_aside(now)?;
            open = self.opened()?;
            count = self.fitting(lines, open.size);
        }
        // A line that is longer than a file may be has one of its own.
        let count = count.max(1);
        let mut bytes = lines[..count].join("\n");
        bytes.push('\n');
        if let Err(error) = open.file.write_all(bytes.as_bytes()) {
            // A line that is half there would be read as part of the next one.
            let _ = open.file.set_len(open.size);
            return Err(error);
        }
        open.size += bytes.len() as u64;
        self.open = Some(open);
        Ok(count)
    }

    /// How many of the lines fit into a file that has `size` bytes.
    fn fitting(&self, lines: &[String], size: u64) -> usize {
        let ends = lines.iter().scan(size, |end, line| {
            *end += line.len() as u64 + 1;
            Some(*end)
        });
        ends.take_while(|end| *end <= self.settings.max_bytes).count()
    }

    /// The last whole line of the log, be it in a file that was moved aside. `None` where the log is empty.
    pub fn last_line(&self) -> io::Result<Option<String>> {
        let mut newest_first = self.moved_aside()?;
        newest_first.reverse();
        for path in std::iter::once(self.settings.path.clone()).chain(newest_first) {
            match last_line(&path) {
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// The file, which stays closed if the caller does not put it back: an error needs no other cleaning up.
    fn opened(&mut self) -> io::Result<Open> {
        let path = &self.settings.path;
        if let Some(open) = self.open.take()
            && fs::metadata(path).is_ok_and(|metadata| id(&metadata) == open.id)
        {
            return Ok(open);
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let metadata = file.metadata()?;
        let mut size = metadata.len();
        if size > 0 && !ends_in_line_feed(&mut file)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Open {
            file,
            size,
            id: id(&metadata),
        })
    }

    fn move_aside(&self, now: Timestamp) -> io::Result<()> {
        let mut to = self.path_aside(now);
        let mut later = now;
        while to.exists() {
            later = later
                .saturating_add(jiff::SignedDuration::from_millis(1))
                .map_err(io::Error::other)?;
            to = self.path_aside(later);
        }
        fs::rename(&self.settings.path, to)?;
        let aside = self.moved_aside()?;
        let surplus = aside.len().saturating_sub(self.settings.max_files);
        aside.iter().take(surplus).try_for_each(fs::remove_file)
    }

    fn path_aside(&self, time: Timestamp) -> PathBuf {
        let (stem, extension) = self.name_parts();
        let time = format!("{time:.3}").replace(':', "-");
        self.settings
            .path
            .with_file_name(format!("{stem}-{}{extension}", time.trim_end_matches('Z')))
    }

    /// Oldest first.
    fn moved_aside(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.name_parts();
        let directory = match self.settings.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut found = Vec::new();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let time = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(extension.as_str()));
            if time.is_some_and(is_time) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// `policy_action` and `.log`.
    fn name_parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let stem = part(self.settings.path.file_stem()).unwrap_or_default();
        let extension = part(self.settings.path.extension()).map(|extension| format!(".{extension}"));
        (stem, extension.unwrap_or_default())
    }
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether the text has the shape of the time in the name of a file that was moved aside.
fn is_time(text: &str) -> bool {
    let shape = "0000-00-00T00-00-00.000";
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

fn ends_in_line_feed(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn last_line(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = match tail.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => String::from_utf8_lossy(&tail[..end]).into_owned(),
        None => return Ok(None),
    };
    Ok(whole.rsplit('\n').next().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn log(directory: &Path, max_bytes: u64, max_files: usize) -> LogFile {
        LogFile::new(FileSettings {
            path: directory.join("net/policy_action.log"),
            max_bytes,
            max_files,
        })
    }

    fn append(log: &mut LogFile, line: &str, now: Timestamp) -> io::Result<()> {
        log.append(&[line.to_owned()], now).result
    }

    fn time(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_767_323_045_000 + milliseconds).expect("a time")
    }

    fn contents(directory: &Path) -> BTreeMap<String, String> {
        fs::read_dir(directory.join("net"))
            .expect("the log's directory")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, fs::read_to_string(path).expect("text"))
            })
            .collect()
    }

    fn named<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
        files
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into()
    }

    #[test]
    fn a_full_file_moves_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = log(directory.path(), 10, 2);
        for (i, line) in [
            "aaaa",
            "bbbb",
            "cccc",
            "dddd",
            "eeee",
            "ffff",
            "gggg",
            "longer than it may be",
        ]
        .into_iter()
        .enumerate()
        {
            append(&mut log, line, time(i as i64 / 4)).expect("written");
        }
        assert_eq!(
            contents(directory.path()),
            named([
                ("policy_action-2026-01-02T03-04-05.002.log", "eeee\nffff\n"),
                ("policy_action-2026-01-02T03-04-05.003.log", "gggg\n"),
                ("policy_action.log", "longer than it may be\n"),
            ])
        );
        assert_eq!(
            log.last_line().expect("readable"),
            Some("longer than it may be".to_owned())
        );
    }

    #[test]
    fn lines_written_together_are_split_between_files_as_if_they_came_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = log(directory.path(), 10, 9);
        let lines = ["aaaa", "bbbb", "longer than it may be", "cccc", "dddd", "eeee"].map(str::to_owned);
        let appended = log.append(&lines, time(0));
        assert_eq!((appended.lines, appended.result.is_ok()), (6, true));
        assert_eq!(
            contents(directory.path()),
            named([
                ("policy_action-2026-01-02T03-04-05.000.log", "aaaa\nbbbb\n"),
                (
                    "policy_action-2026-01-02T03-04-05.001.log",
                    "longer than it may be\n"
                ),
                ("policy_action-2026-01-02T03-04-05.002.log", "cccc\ndddd\n"),
                ("policy_action.log", "eeee\n"),
            ])
        );
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("net")).expect("created");
        let others = named([
            ("policy_action-notes.log", "x"),
            ("policy_action-2026-01-02T03-04-05.678.txt", "x"),
            ("other-2026-01-02T03-04-05.678.log", "x"),
        ]);
        for (name, text) in &others {
            fs::write(directory.path().join("net").join(name), text).expect("written");
        }
        let mut log = log(directory.path(), 1, 0);
        append(&mut log, "a", time(0)).expect("written");
        append(&mut log, "b", time(0)).expect("written");
        let mut expected = others;
        expected.insert("policy_action.log".to_owned(), "b\n".to_owned());
        assert_eq!(contents(directory.path()), expected);
    }

    #[test]
    fn a_torn_line_is_closed_and_the_last_whole_one_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = log(directory.path(), 1000, 2);
        assert_eq!(log.last_line().expect("readable"), None);
        append(&mut log, "one", time(0)).expect("written");
        let path = directory.path().join("net/policy_action.log");
        fs::write(&path, "one\n{\"torn").expect("written");
        assert_eq!(log.last_line().expect("readable"), Some("one".to_owned()));
        let mut log = LogFile::new(log.settings);
        append(&mut log, "two", time(0)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "one\n{\"torn\ntwo\n");
    }

    #[test]
    fn the_last_line_may_be_in_a_file_that_was_moved_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = log(directory.path(), 1, 9);
        for line in ["1", "2", "3"] {
            append(&mut log, line, time(0)).expect("written");
        }
        fs::remove_file(directory.path().join("net/policy_action.log")).expect("removed");
        assert_eq!(log.last_line().expect("readable"), Some("2".to_owned()));
    }

    #[test]
    fn a_file_that_somebody_took_away_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = log(directory.path(), 1000, 2);
        append(&mut log, "one", time(0)).expect("written");
        fs::remove_dir_all(directory.path().join("net")).expect("removed");
        append(&mut log, "two", time(0)).expect("written");
        assert_eq!(
            contents(directory.path()),
            named([("policy_action.log", "two\n")])
        );
    }

    #[test]
    fn failures_are_errors_and_the_next_line_tries_again() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(
            directory.path().join("net"),
            "a file where the directory should be",
        )
        .expect("written");
        let mut log = log(directory.path(), 1000, 2);
        assert!(append(&mut log, "one", time(0)).is_err());
        fs::remove_file(directory.path().join("net")).expect("removed");
        append(&mut log, "two", time(0)).expect("written");
        assert_eq!(
            contents(directory.path()),
            named([("policy_action.log", "two\n")])
        );
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut log = LogFile::new(FileSettings::new(PathBuf::from("/dev/full")));
        let error = append(&mut log, "one", time(0)).expect_err("no space");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
