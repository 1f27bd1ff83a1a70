//! One file; gate.toml documents its keys.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use groundtackle_core::Secret;
use groundtackle_health_check_client::Authorities;
use groundtackle_release_gate::{EvidenceSource, Gate, Length, PolicyFormat, PublicKey, Signer};
use groundtackle_release_gate_checklist::{Checklist, ChecklistConfig};
use groundtackle_release_gate_github::GitHubConfig;
use groundtackle_release_gate_http::{HttpEvidence, HttpEvidenceConfig};
use serde::Deserialize;

use crate::Fault;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub log: PathBuf,
    pub github: Option<GitHubRule>,
    policy: PathBuf,
    key: PathBuf,
    token: PathBuf,
    checklist: Option<ChecklistConfig>,
    #[serde(default)]
    evidence: Vec<HttpEvidenceConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHubRule {
    pub secret: PathBuf,
    pub takes: Option<Length>,
    #[serde(default = "yes")]
    pub as_evidence: bool,
    pub app: GitHubConfig,
}

const fn yes() -> bool {
    true
}

pub fn text(path: &Path) -> Result<String, Fault> {
    let text = fs::read_to_string(path);
    text.map_err(|error| format!("{}: {error}", path.display()).into())
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, Fault> {
        // The rest of the message shows the text, which may have a secret in it.
        let wrong = |error: toml::de::Error| format!("{}: {}", path.display(), error.message());
        Ok(toml::from_str(&text(path)?).map_err(wrong)?)
    }

    pub fn gate(&self) -> Result<Gate, Fault> {
        let name = self.policy.display().to_string();
        Ok(Gate::read(
            &name,
            &text(&self.policy)?,
            PolicyFormat::of(&name),
        )?)
    }

    pub fn signer(&self) -> Result<Signer, Fault> {
        // 64 hexadecimal digits, as a public key is written.
        let PublicKey(seed) = text(&self.key)?.trim().parse().map_err(|_| {
            format!(
                "{} is no key: write 64 hexadecimal digits",
                self.key.display()
            )
        })?;
        Ok(Signer::from_seed(&seed))
    }

    pub fn token(&self) -> Result<Secret, Fault> {
        secret(&self.token)
    }

    /// All but GitHub.
    pub fn sources(&self) -> Vec<Arc<dyn EvidenceSource>> {
        let mut sources: Vec<Arc<dyn EvidenceSource>> = Vec::new();
        if let Some(checklist) = &self.checklist {
            sources.push(Arc::new(Checklist::new(checklist.clone())));
        }
        for server in &self.evidence {
            let server = HttpEvidence::new(server.clone(), Authorities::new(None));
            sources.push(Arc::new(server));
        }
        sources
    }
}

pub fn secret(path: &Path) -> Result<Secret, Fault> {
    Ok(Secret::from(text(path)?.trim()))
}
