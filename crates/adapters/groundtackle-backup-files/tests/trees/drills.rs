//! Drills of trees, into nothing and into scratch directories.

use groundtackle_backup::{
    Drill, DrillLevel, DrillOutcome, Evidence, Objectives, Pack, TreeGround, TreeSummary,
};
use groundtackle_backup_files::{DirectoryGround, ReplayGround};

use super::hostile::{back_up, small};
use super::*;

type Change = fn(&mut TreeSummary);

const OPTIONS: fn() -> RestoreOptions = RestoreOptions::default;

async fn hold<'a>(
    place: &'a Place,
    level: DrillLevel,
    ground: &'a mut dyn TreeGround,
    change: impl FnOnce(&mut Drill<'a>),
) -> Evidence {
    let mut drill = Drill {
        level,
        keys: Some(&Named("reader")),
        tree_ground: Some(ground),
        ..Drill::new("files", &place.signer)
    };
    change(&mut drill);
    place.repository.drill(drill).await.unwrap().evidence
}

#[track_caller]
fn says(evidence: &Evidence, words: &[&str]) {
    assert_eq!(evidence.drill.outcome, DrillOutcome::Failed, "{evidence:?}");
    assert_eq!(evidence.drill.restored_tree, None, "{evidence:?}");
    let reasons = evidence.drill.reasons.join("\n");
    for word in words {
        assert!(reasons.contains(word), "{word:?}: {reasons}");
    }
}

#[test]
fn a_tree_comes_back_for_practice() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        odd_tree(&tree);
        place.back_up(place.config()).await.unwrap();
        fs::write(tree.join("a-b"), b"changed since").unwrap();
        let as_it_was = shown(&tree);
        let second = place.back_up(place.config()).await.unwrap().manifest;
        assert_eq!(second.content.uses().len(), 1);
        let wanted = second.content.tree().unwrap();

        let replayed = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
        assert!(replayed.passed(), "{replayed:?}");
        let restored = replayed.drill.restored_tree.unwrap();
        assert_eq!((restored.point, restored.tree), (second.point, wanted));
        assert!(replayed.drill.place.is_none() && replayed.drill.proofs.is_empty());

        let scratch = place.path("scratch");
        let mut ground = DirectoryGround::new(&scratch, OPTIONS()).unwrap();
        let loaded = hold(&place, DrillLevel::Load, &mut ground, |_| {}).await;
        assert!(loaded.passed(), "{loaded:?}");
        assert_eq!(shown(&scratch), as_it_was);
        let proofs: Vec<_> = loaded
            .drill
            .proofs
            .iter()
            .map(|proof| &*proof.found)
            .collect();
        let (entries, bytes) = (wanted.entries.to_string(), wanted.bytes.to_string());
        assert_eq!(proofs, [&*entries, &*bytes, "0"]);
        let at = scratch.canonicalize().unwrap().display().to_string();
        assert_eq!(loaded.drill.place, Some(at));
        println!(
            "{wanted:?}: replayed in {:?} ms, loaded in {:?}",
            replayed.drill.measured.recovery_millis, loaded.drill.measured.recovery_millis
        );

        // There is something in it now; and it serves nothing.
        let mut full = DirectoryGround::new(&scratch, OPTIONS()).unwrap();
        let refused = hold(&place, DrillLevel::Load, &mut full, |_| {}).await;
        says(&refused, &["it is not empty"]);
        let mut other = DirectoryGround::new(&place.path("other"), OPTIONS()).unwrap();
        let refused = hold(&place, DrillLevel::Serve, &mut other, |_| {}).await;
        says(&refused, &["good for level load at most"]);
        let refused = hold(&place, DrillLevel::Load, &mut ReplayGround, |_| {}).await;
        says(&refused, &["good for level replay at most"]);
        assert!(!place.path("other").exists());

        let too_slow = hold(&place, DrillLevel::Replay, &mut ReplayGround, |drill| {
            drill.objectives = Objectives {
                recovery_time: Some(std::time::Duration::from_nanos(1)),
                ..Objectives::default()
            };
        })
        .await;
        assert_eq!(too_slow.drill.outcome, DrillOutcome::Failed);
        let reason = &too_slow.drill.reasons[0];
        assert!(reason.contains("the time to recover is"), "{reason}");
    });
}

#[test]
fn a_drill_keeps_away_from_production() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        place.back_up(place.config()).await.unwrap();
        symlink(&tree, place.path("by-a-link")).unwrap();
        let before = shown(place.folder.path());
        for at in [
            "tree",
            "tree/below",
            "tree/new/deeper",
            "by-a-link/below",
            "",
        ] {
            let mut ground = DirectoryGround::new(&place.path(at), OPTIONS()).unwrap();
            let refused = hold(&place, DrillLevel::Load, &mut ground, |drill| {
                drill.production = vec!["embedded:/other".into(), tree.display().to_string()];
            })
            .await;
            says(&refused, &["is production, and no drill restores there"]);
            assert_eq!(shown(place.folder.path()), before, "{at}");
        }
        // There is no way by what is not there.
        DirectoryGround::new(&place.path("x/../tree"), OPTIONS()).unwrap_err();
        let mut beside = DirectoryGround::new(&place.path("tree-2"), OPTIONS()).unwrap();
        let held = hold(&place, DrillLevel::Load, &mut beside, |drill| {
            drill.production = vec![tree.display().to_string()];
        })
        .await;
        assert!(held.passed(), "{held:?}");
    });
}

#[test]
fn a_damaged_backup_and_a_wrong_digest_fail_the_drill() {
    runtime().block_on(async {
        let place = Place::new().await;
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("large"), noise(1, 3_000_000)).unwrap();
        let made = place.back_up(place.config()).await.unwrap().manifest;
        let pack = Pack::key(&made.packs[0].id).unwrap();
        let bytes = made.packs[0].bytes;
        let body = place.target.read(&pack, 0..bytes).await.unwrap().unwrap();
        let put = async |body: Vec<u8>| {
            place.target.remove(&pack).await.unwrap().unwrap();
            let put = place.target.put(&pack, body.into(), &PutIf::Absent, None);
            put.await.unwrap().unwrap();
        };
        for (number, at) in [9, bytes / 2, bytes - 9].into_iter().enumerate() {
            let mut damaged = body.to_vec();
            damaged[at as usize] ^= 4;
            put(damaged).await;
            let found = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
            says(&found, &[pack.as_str()]);
            let into = place.path(&format!("scratch-{number}"));
            let mut ground = DirectoryGround::new(&into, OPTIONS()).unwrap();
            let found = hold(&place, DrillLevel::Load, &mut ground, |_| {}).await;
            says(&found, &[pack.as_str()]);
            assert!(!into.exists());
        }
        put(body.to_vec()).await;
        let found = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
        assert!(found.passed(), "{found:?}");

        // What was signed of the whole is not what the segments hold.
        let changes: [(Change, &str); 3] = [
            (|tree| tree.entries += 1, "the number of entries"),
            (|tree| tree.bytes += 1, "the number of bytes"),
            (|tree| tree.blake3.0[7] ^= 1, "the BLAKE3 of the tree"),
        ];
        for (number, (change, what)) in changes.into_iter().enumerate() {
            let place = Place::new().await;
            back_up(&place, &small(), change).await.unwrap();
            let found = hold(&place, DrillLevel::Replay, &mut ReplayGround, |_| {}).await;
            says(&found, &[what]);
            let into = place.path(&format!("wrong-{number}"));
            let mut ground = DirectoryGround::new(&into, OPTIONS()).unwrap();
            let found = hold(&place, DrillLevel::Load, &mut ground, |_| {}).await;
            says(&found, &["not the one that was signed"]);
            assert!(!into.exists());
        }
    });
}
