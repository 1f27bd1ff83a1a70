//! What a repository says of its backups, and what is not believed.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod support;

use std::num::NonZeroU32;

use groundtackle_backup::{DrillLevel, Hex, Share, SigningKey, SystemEntropy, Target};
use groundtackle_backup_testkit::{Call, Fault};
use groundtackle_release_gate::{Error, EvidenceSource, Fact, Retryability, Timestamp};
use groundtackle_release_gate_backup::{BackupEvidence, BackupEvidenceConfig, StreamRule};
use groundtackle_release_gate_testkit::request;

use support::{Place, files};

fn hour(hour: u64) -> Timestamp {
    format!("2026-11-10T{hour:02}:00:00Z").parse().unwrap()
}

async fn ask(place: &Place, rule: StreamRule) -> Result<Vec<(Timestamp, Fact)>, Error> {
    let found = place.source(rule).collect(&request()).await?;
    Ok(found
        .into_iter()
        .map(|evidence| (evidence.observed_at, evidence.fact))
        .collect())
}

async fn facts(place: &Place) -> Vec<(Timestamp, Fact)> {
    ask(place, files()).await.unwrap()
}

fn backup(at: u64) -> (Timestamp, Fact) {
    (
        hour(at),
        Fact::Backup {
            name: "files".into(),
        },
    )
}

fn drill(at: u64, passed: bool) -> (Timestamp, Fact) {
    (
        hour(at),
        Fact::Drill {
            name: "files".into(),
            passed,
        },
    )
}

#[tokio::test]
async fn the_last_restore_point_and_the_last_drill_count() {
    let place = Place::new().await;
    assert_eq!(facts(&place).await, []);
    place.at(1).back_up().await;
    assert_eq!(facts(&place).await, [backup(1)]);
    place.at(3).back_up().await;
    let _ = place.at(4).drill(DrillLevel::Read, true).await;
    assert_eq!(facts(&place).await, [backup(3), drill(4, true)]);
    let _ = place.at(5).drill(DrillLevel::Read, false).await;
    assert_eq!(facts(&place).await, [backup(3), drill(5, false)]);
    let _ = place.at(6).drill(DrillLevel::Read, true).await;
    assert_eq!(facts(&place).await, [backup(3), drill(6, true)]);
    assert_eq!(
        ask(&place, StreamRule::new("utxo")).await.unwrap(),
        [],
        "another stream"
    );
}

#[tokio::test]
async fn a_drill_below_the_level_passes_for_nothing_and_fails_for_all() {
    let place = Place::new().await;
    place.at(1).back_up().await;
    let _ = place.at(2).drill(DrillLevel::Bytes, true).await;
    assert_eq!(facts(&place).await, [backup(1)]);
    assert_eq!(
        ask(
            &place,
            StreamRule {
                drill_level: DrillLevel::Chain,
                ..files()
            }
        )
        .await
        .unwrap(),
        [backup(1), drill(2, true)]
    );
    let _ = place.at(3).drill(DrillLevel::Read, true).await;
    let _ = place.at(4).drill(DrillLevel::Chain, false).await;
    assert_eq!(facts(&place).await, [backup(1), drill(4, false)]);
}

#[tokio::test]
async fn a_share_is_no_whole_drill_unless_the_config_says_so() {
    let place = Place::new().await;
    place.at(1).back_up().await;
    let share = Share {
        part: 0,
        of: NonZeroU32::MIN,
    };
    let _ = place.at(2).drill_share(share).await;
    assert_eq!(facts(&place).await, [backup(1)]);
    assert_eq!(
        ask(
            &place,
            StreamRule {
                shares: true,
                ..files()
            }
        )
        .await
        .unwrap(),
        [backup(1), drill(2, true)]
    );
}

#[tokio::test]
async fn only_what_who_is_trusted_signed_is_believed() {
    let place = Place::new().await;
    place.at(1).back_up().await;
    let failed = place.at(2).drill(DrillLevel::Read, false).await;
    let passed = place.at(3).drill(DrillLevel::Read, true).await;
    assert_eq!(facts(&place).await, [backup(1), drill(3, true)]);
    // What the signature covers can't be flipped; what it does not, such as the key's name, says nothing.
    let key = passed.evidence.object.clone();
    let (mut refused, mut flips) = (0, 0);
    for at in (0..passed.signed.len()).step_by(7) {
        let mut flipped = passed.signed.clone();
        flipped[at] ^= 1;
        place.put(&key, flipped).await;
        flips += 1;
        match ask(&place, files()).await {
            Err(error) => {
                assert!(error.to_string().contains("drills/"), "{at}: {error}");
                refused += 1;
            }
            Ok(found) => assert_eq!(found, [backup(1), drill(3, true)], "{at}"),
        }
    }
    assert!(refused * 10 > flips * 9, "{refused} of {flips}");
    // Signed by somebody else.
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    place
        .put(&key, passed.evidence.sign(&stranger).unwrap())
        .await;
    assert!(ask(&place, files()).await.is_err());
    // Another drill's, under the name of this one.
    place.put(&key, failed.signed.clone()).await;
    assert!(ask(&place, files()).await.is_err());
    place.put(&key, passed.signed.clone()).await;
    assert_eq!(facts(&place).await, [backup(1), drill(3, true)]);
    // What was damaged before the last drill that can be read stands in nobody's way.
    place.put(&failed.evidence.object, b"{}".to_vec()).await;
    assert_eq!(facts(&place).await, [backup(1), drill(3, true)]);
}

#[tokio::test]
async fn a_repository_of_somebody_else_is_an_error() {
    let place = Place::new().await;
    place.at(1).back_up().await;
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let config = BackupEvidenceConfig::new("main", vec![stranger.public()], vec![files()]);
    let source = BackupEvidence::new(place.target.clone(), config).unwrap();
    let error = source.collect(&request()).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Permanent, "{error:?}");
}

#[tokio::test]
async fn a_restore_point_that_is_damaged_is_none() {
    let place = Place::new().await;
    let first = place.at(1).back_up().await;
    let second = place.at(2).back_up().await;
    assert_eq!(facts(&place).await, [backup(2)]);
    place.put(&second.object().unwrap(), b"{}".to_vec()).await;
    assert_eq!(facts(&place).await, [backup(1)]);
    let _ = place.target.remove(&first.object().unwrap()).await.unwrap();
    assert_eq!(facts(&place).await, []);
}

#[tokio::test]
async fn a_target_that_fails_is_an_error_wherever_it_fails() {
    let place = Place::new().await;
    place.at(1).back_up().await;
    let _ = place.at(2).drill(DrillLevel::Read, true).await;
    let mut failed = 0;
    for call in [Call::Read, Call::List] {
        for nth in 1..20 {
            let before = place.target.injected();
            place.target.fail_at(call, nth, Fault::Fail);
            let found = ask(&place, files()).await;
            if place.target.injected() > before {
                failed += 1;
                let error = found.unwrap_err();
                assert_ne!(
                    error.retryability(),
                    Retryability::Indeterminate,
                    "{error:?}"
                );
            }
            place.target.heal();
        }
    }
    assert!(failed >= 5, "{failed}");
    assert_eq!(facts(&place).await, [backup(1), drill(2, true)]);
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let key = Hex([7; 32]);
    let good = format!("name = \"main\"\nsigners = [\"{key}\"]\n[[stream]]\nname = \"utxo\"\n");
    let config: BackupEvidenceConfig = toml::from_str(&good).unwrap();
    assert_eq!(
        config,
        BackupEvidenceConfig::new("main", vec![key], vec![StreamRule::new("utxo")])
    );
    for (text, why) in [
        (
            good.replace("utxo\"", "utxo\"\ndrill_level = \"hope\""),
            "unknown variant",
        ),
        (good.replace("[[stream]]", "[[streams]]"), "unknown field"),
        (good.replace(&key.to_string(), "07"), "signers"),
    ] {
        let error = toml::from_str::<BackupEvidenceConfig>(&text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    let nobody = BackupEvidenceConfig::new("main", vec![], vec![]);
    let target = std::sync::Arc::new(groundtackle_backup::MemoryTarget::new());
    let error = BackupEvidence::new(target, nobody).unwrap_err();
    assert!(error.to_string().contains("signers"), "{error}");
}
