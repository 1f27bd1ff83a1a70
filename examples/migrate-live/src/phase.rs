use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, While};

/// How far the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The old store serves; the new one is being filled.
    Copying,
    /// The old store serves, and the new one follows.
    OldServes,
    /// The new store serves, and the old one follows.
    NewServes,
    /// The old store is left behind. There is no way back.
    Retired,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    phase: Phase,
    from: String,
    to: String,
}

/// Remembers the phase, and between which stores.
#[derive(Debug)]
pub(crate) struct Memory {
    folder: PathBuf,
    from: String,
    to: String,
}

impl Memory {
    /// In this folder, which is made if need be.
    pub(crate) fn open(folder: &Path, from: String, to: String) -> Result<(Self, Phase)> {
        let making = || format!("making {}", folder.display());
        fs::create_dir_all(folder).when(making())?;
        let memory = Self {
            folder: folder.into(),
            from,
            to,
        };
        let path = memory.path();
        let reading = || format!("reading {}", path.display());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                memory.write(Phase::Copying).when(making())?;
                return Ok((memory, Phase::Copying));
            }
            Err(error) => return Err(error).when(reading()),
        };
        let state: State = serde_json::from_slice(&text).when(reading())?;
        if (&state.from, &state.to) != (&memory.from, &memory.to) {
            return Err(Error::Refused(format!(
                "{} is of the migration from {} to {}: name another folder",
                folder.display(),
                state.from,
                state.to
            )));
        }
        Ok((memory, state.phase))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("migration.json")
    }

    /// Durable when it returns. After an error it is not known whether it will be found.
    pub(crate) fn write(&self, phase: Phase) -> std::io::Result<()> {
        let state = State {
            phase,
            from: self.from.clone(),
            to: self.to.clone(),
        };
        let beside = self.folder.join("migration.json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&state)?)?;
        file.sync_all()?;
        fs::rename(beside, self.path())?;
        File::open(&self.folder)?.sync_all()
    }
}
