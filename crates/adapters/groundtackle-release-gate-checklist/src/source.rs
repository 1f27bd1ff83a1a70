use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{
    Digest, Error, Evidence, EvidenceSource, Request, Result, Retryability,
};

use crate::config::ChecklistConfig;
use crate::error::{BACKEND, corrupt, unreadable};
use crate::record::{File, Item, VERSION};

/// The longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The items of a file that are about the artefact that is asked for.
#[derive(Clone, Debug)]
pub struct Checklist(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    config: ChecklistConfig,
}

impl Checklist {
    /// Of a file, which is read each time it is asked.
    #[must_use]
    pub fn new(config: ChecklistConfig) -> Self {
        let name = format!("{BACKEND} {}", config.path.display());
        Self(Arc::new(Inner { name, config }))
    }
}

#[async_trait]
impl EvidenceSource for Checklist {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>> {
        let (inner, artefact) = (self.0.clone(), request.artefact);
        // A disk may take its time. Dropped, the call goes on to its end, and changes nothing.
        let read = tokio::task::spawn_blocking(move || inner.read(&artefact));
        read.await
            .map_err(|error| Error::backend(BACKEND, "reading", Retryability::Transient, error))?
    }
}

impl Inner {
    fn read(&self, artefact: &Digest) -> Result<Vec<Evidence>> {
        let path = &self.config.path;
        let bytes = read(path, MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| corrupt(path, "it is not UTF-8"))?;
        let file: File = toml::from_str(text).map_err(|error| {
            // Without the excerpt, which has several lines.
            let line = text
                .bytes()
                .take(error.span().unwrap_or_default().start)
                .filter(|byte| *byte == b'\n')
                .count();
            let line = line.saturating_add(1);
            corrupt(path, format!("line {line}: {}", error.message().trim()))
        })?;
        if file.version != VERSION {
            let detail = format!(
                "`version` is {}; this version reads {VERSION}",
                file.version
            );
            return Err(corrupt(path, detail));
        }
        // All are looked at, also those of other artefacts: a file with a mistake is not half a file.
        for item in &file.items {
            if let Some(fault) = item.fault() {
                return Err(corrupt(path, format!("item {:?}: {fault}", item.id)));
            }
        }
        let ours = file
            .items
            .into_iter()
            .filter(|item| item.artefact == *artefact);
        ours.map(|item| {
            self.compare(&item)?;
            Ok(item.evidence(&self.name))
        })
        .collect()
    }

    /// The document of an item with what was ticked.
    fn compare(&self, item: &Item) -> Result<()> {
        let (Some(document), Some(digest)) = (&item.document, &item.digest) else {
            return Ok(());
        };
        let path = self.inside(document, &item.id)?;
        let found = Digest::of(&read(&path, self.config.max_document.bytes())?);
        if found != *digest {
            let detail = format!(
                "item {:?}: {} has the digest {found} by now; tick it anew",
                item.id,
                document.display()
            );
            return Err(corrupt(&self.config.path, detail));
        }
        Ok(())
    }

    /// Where the document is, links followed, if that is within the checklist's folder.
    fn inside(&self, document: &Path, id: &str) -> Result<PathBuf> {
        let folder = match self.config.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let whole = |path: &Path| fs::canonicalize(path).map_err(|error| unreadable(path, error));
        let path = whole(&folder.join(document))?;
        if path.starts_with(whole(folder)?) {
            return Ok(path);
        }
        let detail = format!(
            "item {id:?}: {} is not in the checklist's folder; put it there",
            document.display()
        );
        Err(corrupt(&self.config.path, detail))
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| unreadable(path, error))?;
    let kind = file.metadata().map_err(|error| unreadable(path, error))?;
    if !kind.is_file() {
        return Err(corrupt(path, "it is no file"));
    }
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(corrupt(path, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}
