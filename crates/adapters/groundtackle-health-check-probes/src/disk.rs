use std::path::PathBuf;

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::Blocking;
use rustix::fs::{StatVfs, statvfs};
use serde::Deserialize;

use crate::probe::failed;

/// A file system with space, for who is not root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DiskProbe {
    /// A file or folder on it.
    pub path: PathBuf,
    /// Below this it is `Fail`.
    pub fail_below: ByteSize,
    /// Below this it is `Warn`. Default: never.
    #[serde(default)]
    pub warn_below: ByteSize,
    /// With fewer inodes it is `Fail`. File systems that do not count them pass. Default 0.
    #[serde(default)]
    pub fail_below_inodes: u64,
    /// With fewer inodes it is `Warn`. Default 0.
    #[serde(default)]
    pub warn_below_inodes: u64,
}

impl DiskProbe {
    /// A probe of the file system that `path` is on.
    pub fn new(path: impl Into<PathBuf>, fail_below: ByteSize) -> Self {
        Self {
            path: path.into(),
            fail_below,
            warn_below: ByteSize::default(),
            fail_below_inodes: 0,
            warn_below_inodes: 0,
        }
    }

    fn judge(&self, found: &StatVfs) -> Observation {
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let counts_inodes = found.f_files > 0;
        let detail = format!(
            "{} MiB and {} inodes left at {}",
            free >> 20,
            found.f_favail,
            self.path.display()
        );
        let seen = if free < self.fail_below.bytes() {
            Observation::fail("low-space")
        } else if counts_inodes && found.f_favail < self.fail_below_inodes {
            Observation::fail("low-inodes")
        } else if free < self.warn_below.bytes() {
            Observation::warn("low-space")
        } else if counts_inodes && found.f_favail < self.warn_below_inodes {
            Observation::warn("low-inodes")
        } else {
            Observation::pass()
        };
        seen.with_detail(detail)
    }
}

#[derive(Debug)]
pub(crate) struct DiskCheck {
    probe: DiskProbe,
    blocking: Blocking,
}

impl From<DiskProbe> for DiskCheck {
    fn from(probe: DiskProbe) -> Self {
        let blocking = Blocking::default();
        Self { probe, blocking }
    }
}

#[async_trait]
impl Check for DiskCheck {
    async fn check(&self) -> Observation {
        let path = self.probe.path.clone();
        match self.blocking.run(move || statvfs(&path)).await {
            Some(Ok(found)) => self.probe.judge(&found),
            Some(Err(error)) => failed("path-unreadable", self.probe.path.display(), &error),
            None => Observation::unknown("given-up"),
        }
    }
}
