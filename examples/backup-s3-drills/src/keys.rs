//! Who signs, who can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use age::secrecy::ExposeSecret;
use groundtackle_backup::{Entropy, Hex, SigningKey, SystemEntropy};
use groundtackle_core::Secret;

use crate::failure::{Failure, Result, While};

/// Makes the key that signs, and one that reads; none that is there is written over.
pub fn make(signer: &Path, recipients: &Path, identities: &Path) -> Result<()> {
    let mut seed = Hex::<32>::default();
    SystemEntropy
        .fill(&mut seed.0)
        .when("making a random key")?;
    let identity = age::x25519::Identity::generate();
    write(signer, &seed.to_string())?;
    write(identities, identity.to_string().expose_secret())?;
    write(recipients, &identity.to_public().to_string())
}

/// Only its owner reads it.
fn write(path: &Path, text: &str) -> Result<()> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.write(true).create_new(true).open(path)?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    write().when(format_args!("writing {}", path.display()))
}

pub fn signer(path: &Path) -> Result<SigningKey> {
    let text = fs::read_to_string(path).when(format_args!("reading {}", path.display()))?;
    let seed: Hex<32> = text.trim().parse().map_err(|_| {
        Failure::Config(format!(
            "{} must have 64 hexadecimal digits",
            path.display()
        ))
    })?;
    Ok(SigningKey::from_seed(&seed.0))
}

/// One a line, as age-keygen writes them.
pub fn lines(path: &Path) -> Result<Vec<Secret>> {
    let text = fs::read_to_string(path).when(format_args!("reading {}", path.display()))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(Secret::from).collect())
}
