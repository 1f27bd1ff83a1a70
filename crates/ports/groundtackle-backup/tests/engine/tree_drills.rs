//! Drills of trees, to where they are restored, asked, and found to be wrong.

use groundtackle_backup::{
    Drill, DrillLevel, DrillOutcome, Drilled, Evidence, Figures, Objectives, Pack, Proof,
    TreeGround, TreeSummary,
};

use super::kept::*;
use super::retention::Random;
use super::trees::{Listed, grow, read};
use super::*;

type Change = fn(TreeSummary) -> TreeSummary;

/// Where to, and how it behaves.
#[derive(Debug)]
struct Ground {
    reach: DrillLevel,
    /// What it says to have found of what it restored.
    found: Change,
    /// What it finds when it is asked; `None` is no answer.
    proofs: Option<usize>,
    slow: Option<(Manual, Duration)>,
    restores: usize,
}

impl Ground {
    fn new() -> Self {
        Self {
            reach: DrillLevel::Serve,
            found: |tree| tree,
            proofs: Some(1),
            slow: None,
            restores: 0,
        }
    }
}

#[async_trait]
impl TreeGround for Ground {
    fn reach(&self) -> DrillLevel {
        self.reach
    }

    fn place(&self) -> Option<String> {
        Some("scratch".into())
    }

    fn touches(&self, production: &str) -> bool {
        production.starts_with("scratch")
    }

    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary> {
        self.restores += 1;
        let tree = read(repository, point, keys).await?;
        if let Some((clock, time)) = &self.slow {
            clock.pass(*time);
        }
        Ok((self.found)(TreeSummary {
            entries: tree.len() as u64,
            ..TreeSummary::default()
        }))
    }

    async fn prove(&mut self, level: DrillLevel, tree: &TreeSummary) -> Result<Vec<Proof>> {
        let proof = Proof {
            what: format!("entries at {level}"),
            found: tree.entries.to_string(),
        };
        let proofs = self.proofs.map(|count| vec![proof; count]);
        proofs.ok_or_else(|| Error::invalid_request("the server does not answer"))
    }
}

struct Drills {
    kept: Kept,
    listed: Listed,
}

impl Drills {
    /// Of two restore points, of which the second one uses the first.
    async fn new(seed: u64) -> Self {
        let (mut kept, listed) = (Kept::new(seed).await, Listed::default());
        let mut random = Random(seed);
        for _ in 0..2 {
            grow(&mut kept, &listed, seed, &mut random).await;
        }
        Self { kept, listed }
    }

    async fn hold<'a>(
        &'a self,
        level: DrillLevel,
        ground: &'a mut Ground,
        change: impl FnOnce(&mut Drill<'a>),
    ) -> Evidence {
        let mut drill = Drill {
            level,
            keys: Some(&Named("reader")),
            tree_ground: Some(ground),
            ..Drill::new("tree", &self.kept.place.signer)
        };
        change(&mut drill);
        let held = self.kept.place.repository.drill(drill).await.unwrap();
        let Drilled { evidence, .. } = held;
        // What is given back is what anybody reads.
        let found = self.kept.place.repository.evidence().await.unwrap();
        assert!(found.usable.contains(&evidence), "{found:?}");
        evidence
    }

    #[track_caller]
    fn says(evidence: &Evidence, words: &[&str]) {
        let drill = &evidence.drill;
        assert_eq!(drill.outcome, DrillOutcome::Failed, "{evidence:?}");
        assert_eq!(drill.restored_tree, None, "{evidence:?}");
        let reasons = drill.reasons.join("\n");
        for word in words {
            assert!(reasons.contains(word), "{word:?}: {reasons}");
        }
    }

    fn last(&self) -> (Manifest, Vec<u64>) {
        self.listed.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn a_tree_is_restored_for_practice() {
    let drills = Drills::new(21).await;
    let (last, numbers) = drills.last();
    for (level, proofs) in [
        (DrillLevel::Replay, 0),
        (DrillLevel::Load, 1),
        (DrillLevel::Serve, 1),
    ] {
        let mut ground = Ground::new();
        ground.slow = Some((drills.kept.clock.clone(), Duration::from_secs(7)));
        let evidence = drills.hold(level, &mut ground, |_| {}).await;
        assert!(evidence.passed(), "{evidence:?}");
        let drill = &evidence.drill;
        let chosen = drill.chosen_tree.unwrap();
        assert_eq!(
            (chosen.point, chosen.tree.entries),
            (last.point, numbers.len() as u64)
        );
        assert_eq!((drill.restored_tree, drill.restored), (Some(chosen), None));
        assert_eq!(drill.measured.recovery_millis, Some(7_000));
        assert_eq!(drill.proofs.len(), proofs);
        assert_eq!(drill.place.as_deref(), Some("scratch"));
        // Both manifests: the second one uses the first.
        assert_eq!(evidence.subjects.len(), 2);
        assert_eq!(ground.restores, 1);
        let points = drills.kept.place.repository.points().await.unwrap();
        let figures = Figures::of("tree", &points.usable, &[evidence]);
        assert_eq!(figures.last_good_drill_level, Some(level));
        assert_eq!(figures.last_recovery_millis, Some(7_000));
    }
}

#[tokio::test]
async fn what_comes_out_otherwise_fails_the_drill() {
    let drills = Drills::new(22).await;
    let cases: [(Change, &str); 3] = [
        (
            |tree| TreeSummary {
                entries: tree.entries + 1,
                ..tree
            },
            "the number of entries",
        ),
        (
            |tree| TreeSummary { bytes: 9, ..tree },
            "the number of bytes in files",
        ),
        (
            |tree| TreeSummary {
                blake3: Hex([1; 32]),
                ..tree
            },
            "the BLAKE3 of the tree",
        ),
    ];
    for (found, says) in cases {
        let mut ground = Ground {
            found,
            ..Ground::new()
        };
        let evidence = drills.hold(DrillLevel::Load, &mut ground, |_| {}).await;
        Drills::says(&evidence, &[says]);
        assert!(evidence.drill.proofs.is_empty(), "{evidence:?}");
        assert_eq!(evidence.drill.measured.recovery_millis, None);
    }
}

#[tokio::test]
async fn a_damaged_or_slow_one_and_one_that_does_not_answer_fail() {
    let drills = Drills::new(23).await;
    let slow = || Ground {
        slow: Some((drills.kept.clock.clone(), HOUR)),
        ..Ground::new()
    };
    let objectives = Objectives {
        recovery_time: Some(HOUR / 2),
        ..Objectives::default()
    };
    let (mut ground, mut again) = (slow(), slow());
    let late = drills
        .hold(DrillLevel::Replay, &mut ground, |drill| {
            drill.objectives = objectives;
        })
        .await;
    assert_eq!(late.drill.outcome, DrillOutcome::Failed);
    assert!(
        late.drill.reasons[0].contains("the time to recover is 3600s"),
        "{late:?}"
    );
    assert!(
        drills
            .hold(DrillLevel::Replay, &mut again, |_| {})
            .await
            .passed()
    );

    for (proofs, says) in [
        (Some(0), "nothing is proven"),
        (None, "the server does not answer"),
    ] {
        let mut ground = Ground {
            proofs,
            ..Ground::new()
        };
        let evidence = drills.hold(DrillLevel::Serve, &mut ground, |_| {}).await;
        assert!(evidence.drill.reasons[0].contains(says), "{evidence:?}");
        assert!(!evidence.passed() && evidence.drill.measured.recovery_millis.is_none());
    }

    // A byte of what it uses of the first one.
    let first = drills.listed.lock().unwrap()[0].0.clone();
    let pack = Pack::key(&first.packs[0].id).unwrap();
    let target = &drills.kept.place.target;
    let mut body = drills.kept.place.body(&pack).await;
    body[20] ^= 1;
    target.remove(&pack).await.unwrap().unwrap();
    let put = target.put(&pack, body.into(), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let mut ground = Ground::new();
    let evidence = drills.hold(DrillLevel::Replay, &mut ground, |_| {}).await;
    Drills::says(&evidence, &[pack.as_str()]);
}

#[tokio::test]
async fn no_tree_is_restored_into_production() {
    let drills = Drills::new(24).await;
    for level in [DrillLevel::Replay, DrillLevel::Load, DrillLevel::Serve] {
        let mut ground = Ground::new();
        let evidence = drills
            .hold(level, &mut ground, |drill| {
                drill.production = vec!["elsewhere".into(), "scratch/below".into()];
            })
            .await;
        Drills::says(
            &evidence,
            &["scratch, by way of scratch/below, is production, and no drill"],
        );
        assert_eq!(ground.restores, 0);
    }
    let mut low = Ground {
        reach: DrillLevel::Load,
        ..Ground::new()
    };
    let evidence = drills.hold(DrillLevel::Serve, &mut low, |_| {}).await;
    Drills::says(&evidence, &["good for level load at most"]);
    let mut unused = Ground::new();
    let evidence = drills
        .hold(DrillLevel::Replay, &mut unused, |drill| {
            drill.tree_ground = None;
        })
        .await;
    Drills::says(&evidence, &["no ground for trees"]);
    let evidence = drills
        .hold(DrillLevel::Replay, &mut low, |drill| drill.keys = None)
        .await;
    Drills::says(&evidence, &["needs an identity"]);
    assert_eq!(low.restores, 0);
}
