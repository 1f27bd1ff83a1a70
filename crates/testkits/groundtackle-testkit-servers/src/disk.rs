use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A file system of its own in memory, gone with it.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// A size as `mount` reads it; `None` where this process may not mount.
    pub fn new(size: &str) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let options = format!("size={size},mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is left but at most so many bytes.
    pub fn fill(&self, rest: usize) {
        let filler = self.path().join("filler");
        let mut all = 0;
        while fs::write(&filler, vec![1; all + rest]).is_ok() {
            all += rest;
        }
        fs::write(&filler, vec![1; all]).expect("it fitted before");
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).expect("it is filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}
