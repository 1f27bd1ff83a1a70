//! The cases. Each documents the promise it checks, in the port's words.

pub(crate) mod conditions;
pub(crate) mod listings;
pub(crate) mod locks;
pub(crate) mod needs;
pub(crate) mod objects;
pub(crate) mod uploads;

use bytes::Bytes;
use groundtackle_backup::{ObjectKey, Refused};

use crate::content::content;
use crate::harness::key;

/// A small content that only its number tells from others.
fn small(tag: u64) -> Bytes {
    content(tag, 0..1_000 + tag % 1_000)
}

fn exists(name: &str) -> Refused {
    Refused::Exists { key: key(name) }
}

fn changed(name: &str) -> Refused {
    Refused::Changed { key: key(name) }
}

fn names(objects: &[groundtackle_backup::ObjectInfo]) -> Vec<&str> {
    let keys = objects.iter().map(|info| &info.key);
    keys.map(ObjectKey::as_str).collect()
}
