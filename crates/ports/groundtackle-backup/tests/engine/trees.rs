//! Restore points of trees, which use segments of earlier ones, beside whatever else is done to a repository. A tree is
//! here a set of numbers, each in a segment of its own.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Mutex;

use groundtackle_backup::{Drill, DrillLevel, MIN_GRACE, Pack, PruneOptions, TreeAt, Used};

use super::kept::*;
use super::retention::Random;
use super::*;

/// What a tree holds, and where each number is: which restore point, and which segment.
pub(super) type Tree = BTreeMap<u64, (u32, u64)>;

pub(super) type Listed = Arc<Mutex<Vec<(Manifest, Vec<u64>)>>>;

const READER: Named = Named("reader");

fn segment(codec: &str, value: &impl serde::Serialize) -> Segment {
    Segment {
        info: SegmentInfo {
            codec: codec.into(),
            items: u64::from(codec == "number"),
            first: HexBytes(Vec::new()),
            last: HexBytes(Vec::new()),
            heights: None,
        },
        bytes: serde_json::to_vec(value).unwrap(),
    }
}

/// `numbers`, of which `known` are in restore points that may be used.
fn tree(numbers: &[u64], number: u32, uses: &[Used], known: &Tree) -> Numbers {
    let mut segments = Vec::new();
    let mut tree = Tree::new();
    for value in numbers {
        let at = known.get(value).copied().unwrap_or_else(|| {
            segments.push(segment("number", value));
            (number, segments.len() as u64 - 1)
        });
        tree.insert(*value, at);
    }
    let mut uses = uses.to_vec();
    uses.retain(|used| tree.values().any(|(number, _)| *number == used.number));
    segments.push(segment("root", &tree.into_iter().collect::<Vec<_>>()));
    let content = Content::Tree {
        entries: numbers.len() as u64,
        bytes: 0,
        blake3: Hex([0; 32]),
        number,
        uses,
    };
    Numbers::new(segments, content)
}

pub(super) async fn read(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
) -> Result<Tree> {
    let reader = repository.open_tree(manifest, keys).await?;
    let root: Vec<(u64, (u32, u64))> = serde_json::from_slice(&reader.root().await?.bytes).unwrap();
    for (value, (number, ordinal)) in &root {
        let found = reader.segment(*number, *ordinal).await?;
        let found: u64 = serde_json::from_slice(&found.bytes).unwrap();
        assert_eq!(found, *value);
    }
    Ok(root.into_iter().collect())
}

/// Some of what the last tree has that may be used, and something new.
async fn write_tree(
    repository: Repository,
    signer: SigningKey,
    mut random: Random,
    listed: Listed,
) -> Done {
    let how = BackUp {
        stream: "tree",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 1,
    };
    let began = repository.begin();
    let points = repository.points().await.unwrap();
    let (mut known, mut uses, mut number) = (Tree::new(), Vec::new(), 0);
    if let Ok(last) = points.tree("tree", TreeAt::Latest) {
        let there = repository.usable_by_tree("tree", &last.point, last.created_unix_millis);
        if !there.await.unwrap().is_empty()
            && let Content::Tree {
                number: of_last,
                uses: of_its,
                ..
            } = &last.content
        {
            // Whatever happened since it was listed: it can be read.
            known = read(&repository, last, &READER).await.unwrap();
            uses = of_its.clone();
            uses.push(Used {
                number: *of_last,
                point: last.point,
                created_unix_millis: last.created_unix_millis,
            });
            number = of_last + 1;
        }
    }
    let mut numbers: Vec<_> = known
        .keys()
        .copied()
        .filter(|_| random.below(4) > 0)
        .collect();
    numbers.extend([random.below(1 << 40), random.below(1 << 40)]);
    let mut source = tree(&numbers, number, &uses, &known);
    match repository.back_up_begun(began, &mut source, &how).await {
        Ok(manifest) => {
            listed.lock().unwrap().push((manifest, numbers));
            Done::ListedTree
        }
        Err(Error::TooSlow { .. }) => Done::GaveUp,
        Err(error) => panic!("{error:?}"),
    }
}

/// All that were listed and not forgotten can be read; how many of the segments were of others.
async fn assert_whole(kept: &Kept, listed: &Listed, what: &str) -> u64 {
    let points = kept.place.repository.points().await.unwrap();
    assert!(points.unusable.is_empty(), "{what}: {points:?}");
    let listed = listed.lock().unwrap().clone();
    let mut used = 0;
    for (manifest, numbers) in &listed {
        if kept.forgotten.contains(&manifest.point) {
            continue;
        }
        let offered = points.tree("tree", TreeAt::Point(manifest.point)).unwrap();
        assert_eq!(offered, manifest, "{what}");
        points.needs(offered).unwrap();
        let tree = read(&kept.place.repository, offered, &READER).await;
        let tree = tree.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            tree.keys().eq(numbers.iter().collect::<BTreeSet<_>>()),
            "{what}"
        );
        used += numbers.len() as u64 + 1 - manifest.segments;
    }
    used
}

pub(super) async fn grow(
    kept: &mut Kept,
    listed: &Listed,
    seed: u64,
    random: &mut Random,
) -> Hex<16> {
    kept.clock.pass(HOUR);
    let own = Random(random.below(u64::MAX >> 33));
    let signer = signer_of(&kept.place, seed);
    let repository = kept.place.repository.clone();
    write_tree(repository, signer, own, listed.clone()).await;
    listed.lock().unwrap().last().unwrap().0.point
}

/// As with sets of coins: two writers, somebody who forgets, and two prunes.
#[tokio::test]
async fn prunes_beside_backups_of_trees_lose_nothing() {
    let (mut gave_up, mut removed, mut used, mut without) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut kept = Kept::new(seed).await;
        let listed = Listed::default();
        for _ in 0..3 + random.below(4) {
            let point = grow(&mut kept, &listed, seed, &mut random).await;
            if random.below(3) == 0 {
                let old = listed.lock().unwrap()[0].0.point;
                kept.forget(&[old, point][random.below(2) as usize..][..1])
                    .await;
            }
            kept.clock.pass(HOUR * random.below(40) as u32);
        }
        let mut actors = Vec::new();
        for kind in 0..5 {
            let gate = Arc::new(Mutex::new(Gate::default()));
            let target = Gated {
                target: kept.place.target.clone(),
                gate: Some(gate.clone()),
                ..Gated::default()
            };
            let behind = HOUR * if kind == 1 { 70 } else { 0 };
            let repository = kept.through(target, behind).await;
            let signer = signer_of(&kept.place, seed);
            let own = Random(random.below(u64::MAX >> 33));
            let forgets = {
                let listed = listed.lock().unwrap();
                listed[random.below(listed.len() as u64) as usize].0.point
            };
            let listed = listed.clone();
            let work: Pin<Box<dyn Future<Output = Done> + Send>> = match kind {
                0 | 1 => Box::pin(write_tree(repository, signer, own, listed)),
                2 => Box::pin(async move {
                    repository.forget(&[forgets], &signer).await.ok();
                    Done::Forgot(forgets)
                }),
                _ => Box::pin(async move {
                    let options = PruneOptions::new().with_grace(MIN_GRACE);
                    repository.prune(&options).await.unwrap();
                    Done::Pruned
                }),
            };
            let work = Some(work);
            actors.push(Actor { work, gate });
        }
        let before = kept.keys("points/").await.len();
        let done = drive(&mut kept, actors, &mut random).await;
        gave_up += done
            .iter()
            .filter(|done| matches!(done, Done::GaveUp))
            .count();
        removed += (before + 2).saturating_sub(kept.keys("points/").await.len());
        let what = format!("seed {seed}");
        used += assert_whole(&kept, &listed, &what).await;
        // Long after.
        kept.clock.pass(MIN_GRACE * 2);
        kept.prune().await;
        assert_whole(&kept, &listed, &what).await;
        let points = kept.place.repository.points().await.unwrap();
        let needed: HashSet<_> = points
            .usable
            .iter()
            .flat_map(|point| points.needs(point).unwrap())
            .collect();
        let idle = points.forgotten.iter();
        without += idle.filter(|point| !needed.contains(&point.point)).count();
    }
    assert_eq!(without, 0, "what nobody needs goes");
    assert!(
        gave_up > 20 && removed > 100 && used > 500,
        "{gave_up} {removed} {used}"
    );
}

#[tokio::test]
async fn what_a_tree_uses_stays_and_goes_with_it() {
    let (mut kept, listed) = (Kept::new(1).await, Listed::default());
    let mut random = Random(1);
    let first = grow(&mut kept, &listed, 1, &mut random).await;
    let second = grow(&mut kept, &listed, 1, &mut random).await;
    assert_eq!(kept.forget(&[first]).await, 1);
    kept.clock.pass(MIN_GRACE * 2);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.needed), (0, 1));
    assert!(assert_whole(&kept, &listed, "used").await > 0);
    // It may have lost what it used itself: what others use of it is all that is sure.
    let again = kept.place.repository.unforget(&[first]).await;
    assert!(
        matches!(again, Err(Error::InvalidRequest { .. })),
        "{again:?}"
    );
    // What is forgotten is nothing to begin with; what an offered one uses is.
    let repository = kept.place.repository.clone();
    let created = |point| {
        let listed = listed.lock().unwrap();
        let found = listed.iter().find(|(manifest, _)| manifest.point == point);
        found.unwrap().0.created_unix_millis
    };
    let usable = async |point| {
        repository
            .usable_by_tree("tree", &point, created(point))
            .await
            .unwrap()
            .len()
    };
    assert_eq!((usable(first).await, usable(second).await), (0, 2));
    kept.forget(&[second]).await;
    assert_eq!(repository.unforget(&[second]).await.unwrap(), 1);
    kept.forgotten.remove(&second);
    assert_whole(&kept, &listed, "offered again").await;
    kept.forget(&[second]).await;
    kept.clock.pass(MIN_GRACE * 2);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.needed), (2, 0));
    assert_eq!(kept.keys("packs/").await, [""; 0]);
}

#[tokio::test]
async fn a_tree_that_lost_what_it_uses_is_found_out() {
    let (mut kept, listed) = (Kept::new(2).await, Listed::default());
    let mut random = Random(2);
    let first = grow(&mut kept, &listed, 2, &mut random).await;
    let second = grow(&mut kept, &listed, 2, &mut random).await;
    let of = |point| {
        let listed = listed.lock().unwrap();
        listed
            .iter()
            .find(|(manifest, _)| manifest.point == point)
            .unwrap()
            .0
            .clone()
    };
    let repository = &kept.place.repository;
    // A pack of the first one.
    let pack = Pack::key(&of(first).packs[0].id).unwrap();
    let body = kept.place.body(&pack).await;
    kept.place.target.remove(&pack).await.unwrap().unwrap();
    let created = of(second).created_unix_millis;
    let usable = repository.usable_by_tree("tree", &second, created).await;
    assert!(usable.unwrap().is_empty());
    assert!(matches!(
        read(repository, &of(second), &READER).await,
        Err(Error::Missing { .. })
    ));
    let drill = || Drill {
        level: DrillLevel::Read,
        keys: Some(&Named("reader")),
        ..Drill::new("tree", &kept.place.signer)
    };
    let failed = repository.drill(drill()).await.unwrap();
    assert!(
        failed.evidence.drill.reasons[0].contains("is missing"),
        "{failed:?}"
    );
    let put = kept
        .place
        .target
        .put(&pack, body.into(), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let passed = repository.drill(drill()).await.unwrap();
    assert!(passed.evidence.passed(), "{passed:?}");
    assert_eq!(passed.evidence.drill.checked.packs, 2);
    let replay = Drill {
        level: DrillLevel::Replay,
        ..drill()
    };
    let refused = repository.drill(replay).await.unwrap();
    assert!(
        refused.evidence.drill.reasons[0].contains("a tree of files"),
        "{refused:?}"
    );
    // Its manifest.
    kept.place
        .target
        .remove(&of(first).object().unwrap())
        .await
        .unwrap()
        .unwrap();
    let points = repository.points().await.unwrap();
    assert!(matches!(
        points.needs(&of(second)),
        Err(Error::Missing { .. })
    ));
    assert!(matches!(
        read(repository, &of(second), &READER).await,
        Err(Error::Missing { .. })
    ));
}

#[tokio::test]
async fn a_stream_is_of_one_kind() {
    let (mut kept, listed) = (Kept::random(3, &mut Random(3)).await, Listed::default());
    let tree = grow(&mut kept, &listed, 3, &mut Random(3)).await;
    let points = kept.place.repository.points().await.unwrap();
    points.expect_trees("tree").unwrap();
    points.expect_coins("set").unwrap();
    let refused = points.expect_coins("tree").unwrap_err().to_string();
    assert!(
        refused.contains(&tree.to_string()) && refused.contains("name another stream"),
        "{refused}"
    );
    let refused = points.expect_trees("set").unwrap_err().to_string();
    assert!(refused.contains("a set of coins"), "{refused}");
    // A forgotten one may be offered again.
    kept.forget(&[tree]).await;
    let points = kept.place.repository.points().await.unwrap();
    assert!(points.expect_coins("tree").is_err());
}
