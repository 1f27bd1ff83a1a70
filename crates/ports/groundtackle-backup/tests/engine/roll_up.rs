//! Changes written together again.

use std::num::NonZeroU32;

use groundtackle_backup::{PruneOptions, Retention};

use super::*;

impl Place {
    async fn roll_up(&self, blocks: u32) -> Result<Vec<Manifest>> {
        let how = BackUp {
            stream: "set",
            wrapping: &Named("reader"),
            signer: &self.signer,
            workers: 2,
        };
        let blocks = NonZeroU32::new(blocks).unwrap();
        self.repository
            .roll_up(blocks, &Named("reader"), &how)
            .await
    }

    async fn assert_all_restore(&self, blocks: &[Block]) {
        for block in blocks {
            self.assert_restores(block, At::Height(block.entry.position.height))
                .await;
        }
        self.assert_restores(blocks.last().unwrap(), At::Latest)
            .await;
    }

    async fn plan(&self, height: u32) -> Plan {
        Plan::find(&self.points().await, "set", At::Height(height)).unwrap()
    }
}

fn heights(point: &Manifest) -> (u32, u32) {
    let blocks = point.content.blocks();
    let height = |block: &BlockEntry| block.position.height;
    (height(&blocks[0]), height(&blocks[blocks.len() - 1]))
}

/// A base, and a delta for each so many blocks.
async fn with_deltas(blocks: &[Block], each: usize) -> Place {
    let place = Place::new().await;
    place.back_up(Numbers::base(&blocks[0])).await.unwrap();
    for first in (0..blocks.len() - 1).step_by(each) {
        let last = (first + each).min(blocks.len() - 1);
        place
            .back_up(Numbers::delta(&blocks[first..=last]))
            .await
            .unwrap();
    }
    place
}

#[tokio::test]
async fn few_restore_points_lead_where_many_did() {
    let blocks = chain(60, Vec::new(), 1);
    let place = with_deltas(&blocks, 1).await;
    assert_eq!(place.plan(59).await.points().len(), 60);
    let made = place.roll_up(5).await.unwrap();
    let windows: Vec<_> = made.iter().map(heights).collect();
    // More may come of the last window.
    let expected: Vec<_> = (0..11).map(|n| ((n * 5).max(1), n * 5 + 4)).collect();
    assert_eq!(windows, expected);
    place.assert_all_restore(&blocks).await;
    assert_eq!(place.plan(59).await.points().len(), 1 + 11 + 5);
    assert_eq!(place.plan(54).await.points().len(), 1 + 11);

    // Again; and what was rolled up is rolled up.
    assert!(place.roll_up(5).await.unwrap().is_empty());
    let made = place.roll_up(20).await.unwrap();
    let windows: Vec<_> = made.iter().map(heights).collect();
    assert_eq!(windows, [(1, 19), (20, 39)]);
    assert_eq!(place.plan(59).await.points().len(), 1 + 2 + 3 + 5);

    // What it is made of can go.
    let mut rules = Retention::default();
    rules.last = Some(2);
    let points = place.repository.points().await.unwrap();
    let chosen = rules.choose(&points, "set").unwrap();
    assert_eq!(chosen.keep.len() + chosen.needed.len(), 1 + 2 + 3 + 5);
    assert_eq!(chosen.go.len(), 59 + 11 + 2 - 10);
    let forgotten = place.repository.forget(&chosen.go, &place.signer).await;
    assert_eq!(forgotten.unwrap(), chosen.go.len() as u64);
    let options = PruneOptions::new()
        .with_grace(Duration::ZERO)
        .nobody_else_writes();
    place.repository.prune(&options).await.unwrap();
    assert_eq!(place.points().await.len(), 11);
    place.assert_all_restore(&blocks).await;
    place.back_up(Numbers::delta(&blocks[58..])).await.unwrap();
    place.assert_all_restore(&blocks).await;
}

/// Rolling up takes no part in what is the latest, whatever is backed up beside it.
#[tokio::test]
async fn what_is_rolled_up_is_never_the_latest() {
    let blocks = chain(20, Vec::new(), 1);
    let place = with_deltas(&blocks, 2).await;
    let before = place.points().await;
    let made = place.roll_up(4).await.unwrap();
    assert!(!made.is_empty());
    for point in &made {
        let of = before.iter().rfind(|of| heights_of(of) == heights(point).1);
        assert_eq!(of.unwrap().created_unix_millis, point.created_unix_millis);
    }
    let points = place.repository.points().await.unwrap();
    assert_eq!(points.latest("set"), before.last());
    place.assert_all_restore(&blocks).await;
}

fn heights_of(point: &Manifest) -> u32 {
    point.content.position().unwrap().height
}

/// A branch that was left stays as it is, and so does what goes on from the middle of others.
#[tokio::test]
async fn branches_are_left_alone() {
    let trunk = chain(12, Vec::new(), 1);
    let branch = chain(12, trunk[..8].to_vec(), 2);
    let place = with_deltas(&trunk, 3).await;
    // From the middle of 7..=9.
    place
        .back_up(Numbers::delta(&branch[7..=10]))
        .await
        .unwrap();
    for first in 10..19 {
        place
            .back_up(Numbers::delta(&branch[first..=first + 1]))
            .await
            .unwrap();
    }
    let made = place.roll_up(4).await.unwrap();
    let windows: Vec<_> = made.iter().map(heights).collect();
    assert_eq!(windows, [(8, 11), (12, 15)]);
    place.assert_all_restore(&branch).await;
    for block in &trunk {
        place
            .assert_restores(block, At::Block(block.entry.position.hash))
            .await;
    }
}

/// What can't be read is not written again, and nothing is listed of it.
#[tokio::test]
async fn damage_is_not_rolled_up() {
    let blocks = chain(20, Vec::new(), 1);
    let place = with_deltas(&blocks, 2).await;
    let points = place.points().await;
    let pack = groundtackle_backup::Pack::key(&points[2].packs[0].id).unwrap();
    let mut body = place.body(&pack).await;
    body[20] ^= 1;
    place.put(&pack, body).await;
    let error = place.roll_up(100).await;
    assert!(error.unwrap().is_empty());
    let error = place.roll_up(10).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(place.points().await, points);
}

/// A source that leads elsewhere does not take a restore point's place.
#[tokio::test]
async fn another_set_takes_nobodys_place() {
    let blocks = chain(6, Vec::new(), 1);
    let place = with_deltas(&blocks, 2).await;
    let points = place.points().await;
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &place.signer,
        workers: 2,
    };
    let last = points.last().unwrap();
    let mut other = blocks[5].clone();
    other.after.insert(1_000_000);
    other.entry.set = summary(&other.after);
    for mut source in [
        Numbers::base(&blocks[4]),
        Numbers::base(&other),
        Numbers::base(&blocks[5]).since(9),
    ] {
        let made = place
            .repository
            .back_up_instead_of(last, &mut source, &how)
            .await;
        assert!(matches!(made, Err(Error::Incomplete { .. })), "{made:?}");
    }
    assert_eq!(place.points().await, points);
    let mut source = Numbers::base(&blocks[5]);
    let how = BackUp {
        stream: "other",
        ..how
    };
    let made = place
        .repository
        .back_up_instead_of(last, &mut source, &how)
        .await;
    assert!(
        matches!(made, Err(Error::InvalidRequest { .. })),
        "{made:?}"
    );
}
