//! Logs of JSON lines in a profile, for their owner only. Several processes may add to one at once, and each reads every whole
//! line once.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{failure::Failure, private_file};

/// One log.
pub struct LogFile {
    path: PathBuf,
    /// What people lose with it.
    holds: &'static str,
    read_bytes: u64,
}

impl LogFile {
    /// A log of which nothing was read yet; it need not be there. `holds` is told when it is damaged.
    pub fn new(path: PathBuf, holds: &'static str) -> Self {
        Self { path, holds, read_bytes: 0 }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the lines that were added since the last time. Fails at the first that is no `L`, or that `take` refuses.
    pub fn read_new<L: DeserializeOwned>(&mut self, mut take: impl FnMut(L) -> Option<()>) -> Result<(), Failure> {
        let failed = |error| Failure::file("read", &self.path, &error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() == self.read_bytes {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read_bytes)).map_err(failed)?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = reader.read_line(&mut line).map_err(failed)?;
            if bytes == 0 || !line.ends_with('\n') {
                return Ok(()); // The end, or a line that another process is writing.
            }
            serde_json::from_str(&line).ok().and_then(&mut take).ok_or_else(|| {
                Failure::failed(format!("`{}` is damaged at byte {}", self.path.display(), self.read_bytes))
                    .hint(format!("it holds {}: restore it from a backup, or mend the line by hand", self.holds))
            })?;
            self.read_bytes += bytes as u64;
        }
    }

    /// Adds a line, in one write. It is read with the next new ones.
    pub fn append<L: Serialize>(&self, line: &L) -> Result<(), Failure> {
        let mut text = serde_json::to_string(line).map_err(|error| Failure::failed(error.to_string()))?;
        text.push('\n');
        let opened = private_file::options().append(true).create(true).open(&self.path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::file("write", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_whole_line_is_read_once_by_each_reader_and_one_that_is_being_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let (mut one, mut other) = (LogFile::new(path.clone(), "x"), LogFile::new(path.clone(), "x"));
        let read = |log: &mut LogFile| {
            let mut lines = Vec::new();
            log.read_new(|line: u32| {
                lines.push(line);
                Some(())
            })
            .map(|()| lines)
        };
        assert_eq!(read(&mut one), Ok(vec![]), "absent is empty");
        one.append(&1).unwrap();
        other.append(&2).unwrap();
        assert_eq!(read(&mut one), Ok(vec![1, 2]));
        let mut file = private_file::options().append(true).open(&path).unwrap();
        file.write_all(b"3").unwrap();
        assert_eq!(read(&mut one), Ok(vec![]));
        assert_eq!(read(&mut other), Ok(vec![1, 2]));
        file.write_all(b"4\n").unwrap();
        assert_eq!(read(&mut one), Ok(vec![34]));
        file.write_all(b"nothing\n").unwrap();
        let damaged = read(&mut one).unwrap_err();
        assert!(damaged.message.ends_with("log.jsonl` is damaged at byte 7"), "{damaged}");
    }
}
