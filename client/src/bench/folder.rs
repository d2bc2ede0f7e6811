//! A folder of a run, which is removed again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use crate::{failure::Failure, private_file};

/// Dropped, it is gone with what is in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one in this folder, or in the system's for temporary files, which only this user may look into.
    pub fn make(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
        let path = parent.join(format!("socp-bench-{}", process::id()));
        private_file::create_folder(&path)?;
        Ok(Self(path))
    }

    /// Where a file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whoever removed it already did what was wanted.
        let _ = fs::remove_dir_all(&self.0);
    }
}
