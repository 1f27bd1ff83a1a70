//! What a backup holds in memory: of sources of two sizes, into a target that takes 3 s for each write.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    BackUp, Content, DataKey, Hex, HexBytes, KeyWrapping, Listing, MemoryTarget, ObjectInfo,
    ObjectKey, ObjectTag, Outcome, Position, PutIf, Repository, Result, Segment, SegmentInfo,
    SegmentWork, SetSummary, SigningKey, Source, SourceEnd, SystemClock, SystemEntropy, Target,
    TargetCapabilities, Upload, WrappedKey,
};

const SEGMENT_BYTES: usize = 4 << 20;
const WRITE: Duration = Duration::from_secs(3);

/// Nobody reads it again.
#[derive(Debug)]
struct ForNobody;

impl KeyWrapping for ForNobody {
    fn wrap(&self, _: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "none".into(),
            recipients: Vec::new(),
            blob: HexBytes::default(),
        })
    }
}

/// So many segments, made when they are asked for.
#[derive(Debug)]
struct Made {
    left: u64,
    items: u64,
}

#[async_trait]
impl Source for Made {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        (self.left, self.items) = (left, self.items + 1);
        Ok(Some(Box::new(move || {
            Ok(Segment {
                info: SegmentInfo {
                    codec: "made".into(),
                    items: 1,
                    first: HexBytes::default(),
                    last: HexBytes::default(),
                    heights: None,
                },
                bytes: vec![left as u8; SEGMENT_BYTES],
            })
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let position = Position {
            height: 0,
            hash: Hex::default(),
            median_time_past: 0,
        };
        let set = SetSummary {
            coins: self.items,
            muhash: Hex::default(),
        };
        Ok(SourceEnd {
            content: Content::Base {
                epoch: Hex::default(),
                position,
                set,
                muhash_state: HexBytes::default(),
                during: Vec::new(),
            },
            items: self.items,
        })
    }
}

/// Keeps nothing of large objects, and is slow with them.
#[derive(Clone, Debug)]
struct Slow(MemoryTarget);

#[derive(Debug)]
struct SlowUpload(ObjectKey, u64);

#[async_trait]
impl Upload for SlowUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::time::sleep(WRITE).await;
        self.1 += bytes.len() as u64;
        Ok(())
    }
    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        tokio::time::sleep(WRITE).await;
        Ok(Ok(ObjectInfo {
            key: self.0,
            bytes: self.1,
            tag: ObjectTag::new("none"),
            written: UNIX_EPOCH,
        }))
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Target for Slow {
    fn capabilities(&self) -> TargetCapabilities {
        self.0.capabilities()
    }
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.0.put(key, body, condition, lock_until).await
    }
    async fn upload(&self, key: &ObjectKey, _: Option<SystemTime>) -> Result<Box<dyn Upload>> {
        Ok(Box::new(SlowUpload(key.clone(), 0)))
    }
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.0.read(key, range).await
    }
    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.0.info(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        self.0.list(prefix, after, limit).await
    }
    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        self.0.remove(key).await
    }
    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.0.lock(key, until).await
    }
    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        self.0.remove_unfinished(before).await
    }
}

/// The most that this process has had in memory since then, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.unwrap().parse::<u64>().unwrap() >> 10
}

async fn peak_of(segments: u64) -> u64 {
    let signer = SigningKey::random(&SystemEntropy).unwrap();
    let target = Arc::new(Slow(MemoryTarget::new()));
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let repository = Repository::init(target, "main", &signer, clock, entropy);
    let repository = repository.await.unwrap();
    let how = BackUp {
        stream: "made",
        wrapping: &ForNobody,
        signer: &signer,
        workers: 2,
    };
    let mut source = Made {
        left: segments,
        items: 0,
    };
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let manifest = repository.back_up(&mut source, &how).await.unwrap();
    assert_eq!(manifest.encoded_bytes, segments * SEGMENT_BYTES as u64);
    peak_mib()
}

/// Its own process, so that nothing else counts. The clock is the runtime's: nobody waits.
#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_flat() {
    let small = peak_of(30).await;
    let large = peak_of(150).await;
    assert!(large <= 100, "{large} MiB for 600 MiB");
    // Threads that come and go leave some to the allocator: segments, not a share of what was backed up.
    assert!(large <= small + 40, "{small} MiB for 120, {large} for 600");
    println!("peak: {small} MiB for 120 MiB, {large} for 600");
}
