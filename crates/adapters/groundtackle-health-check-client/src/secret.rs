use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use groundtackle_core::Secret;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::blocking::Blocking;
use crate::error::{Error, Result};

const MAX_BYTES: u64 = 65_536;

/// A secret as it is written, `password = "…"`, or in a file, `password = { file = "/run/secrets/password" }`, where somebody may change
/// it: a file is read anew each time. One line break at its end does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// This one.
    Given(Secret),
    /// What this file holds: UTF-8, not empty, of at most 64 KiB.
    File(PathBuf),
}

impl SecretSource {
    /// What it is now.
    ///
    /// **Cancel safety**: nothing is changed; reading a file goes on in the background until the system answers, and the next one waits
    /// for it.
    ///
    /// # Errors
    /// `Secret`.
    pub async fn read(&self, blocking: &Blocking) -> Result<Secret> {
        let path = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::File(path) => path.clone(),
        };
        let read = blocking.run({
            let path = path.clone();
            move || read(&path)
        });
        let read = read.await;
        let read = read.unwrap_or_else(|| Err(io::Error::other("reading it was given up")));
        read.map_err(|source| Error::Secret { path, source })
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(line.into())
}

impl Default for SecretSource {
    fn default() -> Self {
        Self::Given(Secret::default())
    }
}

impl<T: Into<Secret>> From<T> for SecretSource {
    fn from(secret: T) -> Self {
        Self::Given(secret.into())
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct InFile {
            file: PathBuf,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = SecretSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a table with the key file")
            }

            fn visit_str<E>(self, text: &str) -> Result<SecretSource, E> {
                Ok(SecretSource::Given(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
                let InFile { file } = InFile::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SecretSource::File(file))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
