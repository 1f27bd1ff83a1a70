//! The programs that backups are compared with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::BoxError;
use crate::rows::{Measured, Row, size};

/// What a peer is asked to do.
#[derive(Debug)]
pub struct Peer {
    /// As the table has it.
    pub name: &'static str,
    program: &'static str,
    init: Option<&'static str>,
    /// In the folder of the records; `R` is the repository, `N` the number of the backup.
    back_up: &'static str,
    restore: &'static str,
}

/// All of them.
pub const PEERS: [Peer; 5] = [
    Peer {
        name: "restic",
        program: "restic",
        init: Some("restic -q -r $R init"),
        back_up: "restic -q -r $R backup records --tag $N",
        restore: "restic -q -r $R restore latest --tag 1 --target .",
    },
    Peer {
        name: "borg, zstd 3",
        program: "borg",
        init: Some("borg --error init -e repokey-blake2 $R"),
        back_up: "borg create -C zstd,3 $R::$N records",
        restore: "borg extract $R::1 && sync records",
    },
    Peer {
        name: "borg, zstd 1",
        program: "borg",
        init: Some("borg --error init -e repokey-blake2 $R"),
        back_up: "borg create -C zstd,1 $R::$N records",
        restore: "borg extract $R::1 && sync records",
    },
    Peer {
        name: "zstd -1, one thread, not encrypted",
        program: "zstd",
        init: Some("mkdir $R"),
        back_up: "zstd -q -1 --single-thread records -o $R/$N && sync $R/$N",
        restore: "zstd -q -d $R/1 -o records && sync records",
    },
    Peer {
        name: "zstd -3, one thread, not encrypted",
        program: "zstd",
        init: Some("mkdir $R"),
        back_up: "zstd -q -3 --single-thread records -o $R/$N && sync $R/$N",
        restore: "zstd -q -d $R/1 -o records && sync records",
    },
];

impl Peer {
    /// What it says of itself; `None` where it is not installed.
    pub fn version(&self) -> Option<String> {
        let asked = match self.program {
            "restic" => "version",
            _ => "--version",
        };
        let said = Command::new(self.program).arg(asked).output().ok()?;
        let said = String::from_utf8_lossy(&said.stdout);
        Some(said.lines().next().unwrap_or("?").to_owned())
    }

    /// First backup, second one, restore of the file `records` of the folders `before` and `after`.
    ///
    /// # Errors
    /// When it fails, or restores another number of bytes.
    pub fn measure(&self, folder: &Path) -> Result<[Row; 3], BoxError> {
        let place = TempDir::new_in(folder)?;
        let repository = place.path().join("repository");
        let run = |at: &Path, number: &str, script: &str| -> Result<(), BoxError> {
            let status = Command::new("sh")
                .args(["-ec", script])
                .current_dir(at)
                .env("R", &repository)
                .env("N", number)
                .env("RESTIC_PASSWORD", "bench")
                .env("RESTIC_CACHE_DIR", place.path().join("cache"))
                .env("BORG_PASSPHRASE", "bench")
                .env("BORG_BASE_DIR", place.path().join("cache"))
                .stdout(Stdio::null())
                .status()?;
            match status.success() {
                true => Ok(()),
                false => Err(format!("{script} failed: {status}").into()),
            }
        };
        if let Some(init) = self.init {
            run(place.path(), "0", init)?;
        }
        let back_up = |number, from| -> Result<Row, BoxError> {
            let before = size(&repository)?;
            let measured = Measured::begin()?;
            run(&folder.join(from), number, self.back_up)?;
            let mut row = measured.end(self.name)?;
            row.bytes = size(&repository)? - before;
            Ok(row)
        };
        let (first, second) = (back_up("1", "before")?, back_up("2", "after")?);
        let out = place.path().join("out");
        fs::create_dir(&out)?;
        let measured = Measured::begin()?;
        run(&out, "1", self.restore)?;
        let mut row = measured.end(self.name)?;
        row.bytes = size(&out)?;
        let original = size(&folder.join("before").join("records"))?;
        if row.bytes != original {
            return Err(format!("{} restored {} of {original} bytes", self.name, row.bytes).into());
        }
        Ok([first, second, row])
    }
}
