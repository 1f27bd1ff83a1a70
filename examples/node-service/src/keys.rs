//! Secrets that the service makes for itself where the config names none.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use age::secrecy::ExposeSecret;
use groundtackle_backup::{Entropy, Hex, SystemEntropy};
use groundtackle_core::Secret;

use crate::failure::{Failure, Result, While};

/// Whether a secret that is not there is made, or is missed: what was written with it is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Make,
    Refuse,
}

/// 32 random bytes, as a seed or a token: 64 hexadecimal digits in a file.
pub fn random(path: &Path, missing: Missing) -> Result<(Secret, [u8; 32])> {
    let text = read_or(path, missing, || {
        let mut bytes = Hex::<32>::default();
        SystemEntropy
            .fill(&mut bytes.0)
            .when("making a random key")?;
        Ok(bytes.to_string().into())
    })?;
    let bytes: Hex<32> = text.expose().parse().map_err(|_| {
        Failure::config(format!(
            "{} is no key: it has 64 hexadecimal digits",
            path.display()
        ))
    })?;
    Ok((text, bytes.0))
}

/// age's identities, one a line, as age-keygen writes them.
pub fn identities(path: &Path, missing: Missing) -> Result<Vec<Secret>> {
    let text = read_or(path, missing, || {
        let identity = age::x25519::Identity::generate().to_string();
        Ok(identity.expose_secret().to_owned().into())
    })?;
    let lines = text.expose().lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(Secret::from).collect())
}

fn read_or(path: &Path, missing: Missing, make: impl FnOnce() -> Result<Secret>) -> Result<Secret> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Secret::from(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if missing == Missing::Refuse {
                return Err(Failure::config(format!(
                    "{} is missing, and what was written with it is there: bring it back from where you keep it",
                    path.display()
                )));
            }
            let secret = make()?;
            write(path, secret.expose()).when(format_args!("writing {}", path.display()))?;
            tracing::info!(path = %path.display(), "made a key; keep a copy of it elsewhere");
            Ok(secret)
        }
        Err(error) => Err(error).when(format_args!("reading {}", path.display())),
    }
}

/// Whole and on disk or not there, and only its owner reads it.
fn write(path: &Path, secret: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let (mut folders, mut options) = (DirBuilder::new(), OpenOptions::new());
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    folders.recursive(true).create(folder)?;
    let beside = path.with_extension("new");
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}
