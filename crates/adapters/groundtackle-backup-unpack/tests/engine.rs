//! What the engine wrote, read without it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test asserts, and does not use all of what tests share"
)]

mod common;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use common::{Scenario, chain, objects, restore, unpack, write};
use groundtackle_backup::{BackUp, PruneOptions, Retention, SigningKey, Trust};
use groundtackle_backup_age::AgeRecipients;
use groundtackle_backup_unpack::{At, Error, Hex, Identities, Repository};
use groundtackle_backup_utxo::fold;
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

async fn written(scenario: &Scenario) -> (TempDir, Vec<(String, Vec<u8>)>) {
    let folder = TempDir::new().unwrap();
    let objects = objects(&scenario.target).await;
    write(&objects, folder.path());
    (folder, objects)
}

/// Both ends and heights between, forwards and backwards from two bases; and what an independent computation says of the
/// set there.
#[tokio::test(flavor = "multi_thread")]
async fn any_height_of_the_real_chain_is_read() {
    let scenario = chain(599, 41, 300).await;
    let (folder, _) = written(&scenario).await;
    let repository = Repository::open(folder.path(), &[scenario.trust]).unwrap();
    assert!(repository.points().len() > 10 && repository.unusable().is_empty());
    let answers: BTreeSet<_> = mainnet::ANSWERS
        .iter()
        .map(|answer| answer.height)
        .collect();
    let heights = (0..600)
        .step_by(37)
        .chain(answers)
        .chain([20, 61, 299, 300, 301, 598, 599]);
    for height in heights {
        let table = unpack(folder.path(), scenario.trust, At::Height(height)).unwrap();
        assert!(
            table == scenario.sets[&scenario.chain[&height]].1,
            "{height}"
        );
    }
    for answer in mainnet::ANSWERS {
        let table = unpack(folder.path(), scenario.trust, At::Height(answer.height)).unwrap();
        assert_eq!(table.lines().count() as u64, answer.txouts + 1);
    }
    let latest = unpack(folder.path(), scenario.trust, At::Latest).unwrap();
    assert!(latest == scenario.sets[&scenario.chain[&599]].1);
    for at in [At::Height(600), At::Block(Hex([7; 32]))] {
        let error = unpack(folder.path(), scenario.trust, at).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    }
}

/// Every block that was ever connected, the abandoned branch and two epochs included; and as the engine reads it.
#[tokio::test(flavor = "multi_thread")]
async fn branches_windows_and_epochs_are_read() {
    let scenario = common::branches(20).await;
    let (folder, objects) = written(&scenario).await;
    let mut sets = BTreeSet::new();
    for (hash, (height, table)) in &scenario.sets {
        let block = At::Block(Hex(*hash.as_bytes()));
        let found = unpack(folder.path(), scenario.trust, block).unwrap();
        assert!(found == *table, "block {hash} at {height}");
        assert!(restore(&objects, scenario.trust, block).await.unwrap() == *table);
        sets.insert(found);
    }
    assert_eq!(sets.len(), scenario.sets.len());
    for (height, hash) in &scenario.chain {
        let found = unpack(folder.path(), scenario.trust, At::Height(*height)).unwrap();
        assert!(found == scenario.sets[hash].1, "height {height}");
    }
    let latest = unpack(folder.path(), scenario.trust, At::Latest).unwrap();
    assert!(latest == scenario.sets[scenario.chain.values().last().unwrap()].1);
}

/// The latest is none that was forgotten; the way may lead over those; and a tombstone that says nothing is reported.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_not_the_latest() {
    let scenario = chain(99, 20, 50).await;
    let trust = Trust::new([groundtackle_backup::Hex(scenario.trust.0)]).unwrap();
    let target = Arc::new(scenario.target.clone());
    let repository = groundtackle_backup::Repository::open(target, trust);
    let repository = repository.await.unwrap();
    let points = repository.points().await.unwrap().usable;
    let heights = points.iter().map(|point| point.content.position().unwrap());
    let heights: Vec<_> = heights.map(|position| position.height).collect();
    assert_eq!(heights, [0, 20, 40, 50, 60, 80, 99]);
    // The last one; the bases, which all others need.
    let names = [6, 3, 0].map(|at: usize| points[at].point);
    let signer = SigningKey::from_seed(&scenario.seed);
    assert_eq!(repository.forget(&names, &signer).await.unwrap(), 3);

    let (folder, objects) = written(&scenario).await;
    for (at, height) in [
        (At::Latest, 80),
        (At::Height(70), 70),
        (At::Height(10), 10),
        (At::Block(Hex(*scenario.chain[&99].as_bytes())), 99),
    ] {
        let found = unpack(folder.path(), scenario.trust, at).unwrap();
        assert!(found == scenario.sets[&scenario.chain[&height]].1, "{at:?}");
        assert!(restore(&objects, scenario.trust, at).await.unwrap() == found);
    }
    let read = Repository::open(folder.path(), &[scenario.trust]).unwrap();
    let forgotten = read
        .points()
        .iter()
        .filter(|point| read.is_forgotten(point));
    assert_eq!((forgotten.count(), read.points().len()), (3, 7));

    let tombstones: Vec<_> = objects
        .iter()
        .filter(|(key, _)| key.starts_with("forgotten/"))
        .collect();
    let [(first, body), (other, _), _] = &tombstones[..] else {
        panic!("{}", tombstones.len());
    };
    for (key, body) in [(first, &body[1..]), (other, &body[..])] {
        std::fs::write(folder.path().join(key), body).unwrap();
        let read = Repository::open(folder.path(), &[scenario.trust]).unwrap();
        assert!(
            read.unusable()
                .iter()
                .any(|error| error.to_string().contains(key.as_str()))
        );
        assert!(unpack(folder.path(), scenario.trust, At::Latest).is_err());
    }
}

/// The newest wrapping is read, and one by nobody who is trusted is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_wrapped_anew_is_read_by_others() {
    let scenario = chain(30, 20, 10).await;
    let trust = Trust::new([groundtackle_backup::Hex(scenario.trust.0)]).unwrap();
    let target = Arc::new(scenario.target.clone());
    let repository = groundtackle_backup::Repository::open(target, trust);
    let repository = repository.await.unwrap();
    let new = age::x25519::Identity::generate();
    let wrapping = groundtackle_backup_age::AgeRecipients::new(&[new.to_public().to_string()]);
    let wrapping = wrapping.unwrap();
    let (signer, keys) = (SigningKey::from_seed(&scenario.seed), common::secrets());
    for point in repository.points().await.unwrap().usable {
        let rekeyed = repository.rekey(&point, &keys, &wrapping, &signer);
        rekeyed.await.unwrap();
    }
    let (folder, objects) = written(&scenario).await;
    let secret = folder.path().join(".new-identity.txt");
    let text = age::secrecy::ExposeSecret::expose_secret(&new.to_string()).to_owned();
    std::fs::write(&secret, text).unwrap();
    let identities = Identities::read(&secret).unwrap();
    let read = |name: &str| {
        let out = folder.path().join(name);
        let opened = Repository::open(folder.path(), &[scenario.trust]).unwrap();
        let passed_over = opened.passed_over().len();
        let read = opened.unpack(None, At::Latest, &identities, &out);
        read.map(|_| (std::fs::read_to_string(out).unwrap(), passed_over))
    };
    let wanted = &scenario.sets[&scenario.chain[&30]].1;
    assert!(read(".first").unwrap() == (wanted.clone(), 0));
    assert!(unpack(folder.path(), scenario.trust, At::Latest).unwrap() == *wanted);
    let (key, body) = objects
        .iter()
        .rfind(|(key, _)| key.starts_with("keys/"))
        .unwrap();
    std::fs::write(folder.path().join(key), &body[1..]).unwrap();
    let error = read(".second").unwrap_err();
    assert!(matches!(error, Error::WrongKey(..)), "{error:?}");
    assert!(unpack(folder.path(), scenario.trust, At::Latest).unwrap() == *wanted);
    let opened = Repository::open(folder.path(), &[scenario.trust]).unwrap();
    assert_eq!(opened.passed_over().len(), 1);
}

/// Restore points of the same blocks, and of one time: either leads there; and what is left once the others are gone does.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_up_and_folded_is_read() {
    let scenario = chain(99, 5, 50).await;
    let trust = Trust::new([groundtackle_backup::Hex(scenario.trust.0)]).unwrap();
    let target = Arc::new(scenario.target.clone());
    let repository = groundtackle_backup::Repository::open(target, trust);
    let repository = repository.await.unwrap();
    let (signer, keys) = (SigningKey::from_seed(&scenario.seed), common::secrets());
    let recipients = AgeRecipients::new(keys.recipients()).unwrap();
    let stream = repository.points().await.unwrap().usable[0].stream.clone();
    let how = BackUp {
        stream: &stream,
        wrapping: &recipients,
        signer: &signer,
        workers: 2,
    };
    let blocks = NonZeroU32::new(20).unwrap();
    let rolled_up = repository.roll_up(blocks, &keys, &how).await.unwrap();
    assert_eq!(rolled_up.len(), 4);
    let folded = fold(&repository, &keys, &how).await.unwrap();
    assert!(folded.unwrap().passed_over.is_empty());
    for left in [false, true] {
        if left {
            let points = repository.points().await.unwrap();
            let mut rules = Retention::default();
            rules.every_blocks = Some(20);
            let go = rules.choose(&points, &stream).unwrap().go;
            assert!(go.len() > 10, "{go:?}");
            repository.forget(&go, &signer).await.unwrap();
            let options = PruneOptions::new()
                .with_grace(Duration::ZERO)
                .nobody_else_writes();
            let pruned = repository.prune(&options).await.unwrap();
            assert_eq!(pruned.points, go.len() as u64);
        }
        let (folder, objects) = written(&scenario).await;
        for (height, hash) in &scenario.chain {
            // The way to what is kept leads no more over what was not rolled up yet.
            if left && (76..95).contains(height) {
                continue;
            }
            let at = At::Height(*height);
            let found = unpack(folder.path(), scenario.trust, at).unwrap();
            assert!(found == scenario.sets[hash].1, "height {height}");
        }
        let latest = unpack(folder.path(), scenario.trust, At::Latest).unwrap();
        assert!(latest == scenario.sets[&scenario.chain[&99]].1);
        assert!(restore(&objects, scenario.trust, At::Latest).await.unwrap() == latest);
    }
}
