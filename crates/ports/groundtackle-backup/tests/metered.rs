//! A target around which a meter is keeps the promises of the one within, counts, and waits.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{MemoryTarget, Meter, Metered, PutIf, Result, Target};
use groundtackle_backup_testkit::TargetHarness;
use tokio::time::Instant;

struct MeteredHarness;

#[async_trait]
impl TargetHarness for MeteredHarness {
    type Target = Metered;
    type Place = MemoryTarget;

    async fn place(&self) -> MemoryTarget {
        MemoryTarget::new()
    }

    async fn open(&self, place: &MemoryTarget) -> Result<Metered> {
        Ok(Meter::new().around(Arc::new(place.clone())))
    }
}

groundtackle_backup_testkit::target_conformance!(MeteredHarness);

const MIB: usize = 1 << 20;

fn per_second(mib: usize) -> NonZeroU64 {
    NonZeroU64::new((mib * MIB) as u64).unwrap()
}

/// One put of 1 MiB, one upload of 3, one read of 2.
async fn work(target: &Metered, name: &str) {
    let (small, large) = (format!("{name}/small"), format!("{name}/large"));
    let (small, large) = (small.try_into().unwrap(), large.try_into().unwrap());
    let piece = Bytes::from(vec![7; MIB]);
    let put = target.put(&small, piece.clone(), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let mut upload = target.upload(&large, None).await.unwrap();
    for _ in 0..3 {
        upload.write(piece.clone()).await.unwrap();
    }
    upload.finish().await.unwrap().unwrap();
    let read = target.read(&large, 0..2 * MIB as u64).await.unwrap();
    assert_eq!(read.unwrap().len(), 2 * MIB);
    assert!(target.read(&small, 0..0).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn it_counts_what_goes_and_comes() {
    let meter = Meter::new();
    let began = Instant::now();
    for name in ["one", "other"] {
        work(&meter.around(Arc::new(MemoryTarget::new())), name).await;
    }
    let absent = "nothing".try_into().unwrap();
    let target = meter.around(Arc::new(MemoryTarget::new()));
    assert!(target.read(&absent, 0..9).await.unwrap().is_none());
    assert_eq!(
        (meter.written(), meter.read()),
        (8 * MIB as u64, 4 * MIB as u64)
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// By the clock of the runtime, which stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn it_keeps_to_its_limits() {
    let meter = Meter::new().with_write_limit(per_second(2));
    let target = meter.around(Arc::new(MemoryTarget::new()));
    let began = Instant::now();
    work(&target, "first").await;
    // Four pieces of half a second; the last one has its time after it.
    assert_eq!(began.elapsed().as_millis().next_multiple_of(100), 1_500);
    work(&target, "second").await;
    assert_eq!(began.elapsed().as_millis().next_multiple_of(100), 3_500);
    // What was not used is not saved up.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    work(&target, "third").await;
    assert_eq!(began.elapsed().as_millis().next_multiple_of(100), 1_500);

    let meter = Meter::new().with_read_limit(per_second(1));
    let target = meter.around(Arc::new(MemoryTarget::new()));
    let began = Instant::now();
    work(&target, "fourth").await;
    work(&target, "fifth").await;
    assert_eq!(began.elapsed().as_millis().next_multiple_of(100), 2_000);
}

/// Two targets share what there is.
#[tokio::test(start_paused = true)]
async fn several_targets_are_limited_together() {
    let meter = Meter::new().with_write_limit(per_second(1));
    let targets = [(); 2].map(|()| meter.around(Arc::new(MemoryTarget::new())));
    let began = Instant::now();
    tokio::join!(work(&targets[0], "one"), work(&targets[1], "other"));
    assert_eq!(began.elapsed().as_millis().next_multiple_of(100), 7_000);
    assert_eq!(meter.written(), 8 * MIB as u64);
}
