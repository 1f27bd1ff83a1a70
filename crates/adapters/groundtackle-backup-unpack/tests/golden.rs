//! Repositories that were written once, and must be read for ever: by the engine and without it. `UPDATE=1` writes those
//! that are missing.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test asserts, and does not use all of what tests share"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use age::secrecy::ExposeSecret;
use common::{Scenario, golden, identity, objects, read, restore, unpack, write};
use groundtackle_backup_unpack::{At, Error, Hex};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A golden repository: whom to trust, and the SHA-256 of the table at some blocks.
struct Golden {
    folder: PathBuf,
    trust: Hex<32>,
    answers: Vec<(At, Hex<32>)>,
}

fn sum(table: &str) -> Hex<32> {
    Hex(Sha256::digest(table).into())
}

/// Some of the blocks, in lines of text; both ends are among them.
fn describe(scenario: &Scenario) -> String {
    let mut text = format!("trust {}\n", scenario.trust);
    for (hash, (_, table)) in scenario.sets.iter().step_by(3) {
        let hash = Hex(*hash.as_bytes()).reversed();
        writeln!(text, "block {hash} {}", sum(table)).unwrap();
    }
    let last = scenario.chain.iter().next_back();
    for (height, hash) in scenario.chain.iter().step_by(5).chain(last) {
        writeln!(text, "height {height} {}", sum(&scenario.sets[hash].1)).unwrap();
    }
    text
}

fn hex(text: &str) -> Hex<32> {
    Hex::try_from(text.to_owned()).unwrap()
}

fn load(name: &str) -> Golden {
    let text = fs::read_to_string(golden().join(format!("{name}.txt"))).unwrap();
    let mut answers = Vec::new();
    let mut trust = None;
    for line in text.lines() {
        let at = match line.split(' ').collect::<Vec<_>>()[..] {
            ["trust", key] => {
                trust = Some(hex(key));
                continue;
            }
            ["block", hash, sum] => {
                let hash = hex(hash);
                (At::Block(hash.reversed()), hex(sum))
            }
            ["height", height, sum] => (At::Height(height.parse().unwrap()), hex(sum)),
            _ => panic!("{line}"),
        };
        answers.push(at);
    }
    Golden {
        folder: golden().join(name),
        trust: trust.unwrap(),
        answers,
    }
}

/// With `UPDATE=1`, what is not there yet. Never over what is: it is there to stay.
async fn make_missing() {
    if std::env::var_os("UPDATE").is_none() {
        return;
    }
    fs::create_dir_all(golden()).unwrap();
    if !identity().exists() {
        let secret = age::x25519::Identity::generate().to_string();
        let text = format!(
            "# A throwaway identity for these tests: published here on purpose, it protects nothing.\n{}\n",
            secret.expose_secret()
        );
        fs::write(identity(), text).unwrap();
    }
    for name in ["chain", "branches"] {
        if golden().join(name).exists() {
            continue;
        }
        let scenario = match name {
            "chain" => common::chain(170, 85, 600).await,
            _ => common::branches(6).await,
        };
        write(&objects(&scenario.target).await, &golden().join(name));
        let text = describe(&scenario);
        fs::write(golden().join(format!("{name}.txt")), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_repositories_are_read_by_both() {
    make_missing().await;
    let all = read(&golden());
    let bytes: usize = all.iter().map(|(_, body)| body.len()).sum();
    assert!(bytes < 300_000, "{bytes}");
    for name in ["chain", "branches"] {
        let Golden {
            folder,
            trust,
            answers,
        } = load(name);
        assert!(answers.len() > 10, "{}", answers.len());
        let objects = read(&folder);
        for (number, (at, wanted)) in answers.into_iter().enumerate() {
            let table = unpack(&folder, trust, at).unwrap();
            assert_eq!(sum(&table), wanted, "{name}, {at:?}");
            // The engine's own tests restore many more.
            if number % 5 == 0 {
                assert!(restore(&objects, trust, at).await.unwrap() == table);
            }
        }
    }
}

/// What no computation of this project made: the digest of the set at block 170, as other software has it.
#[test]
fn the_last_real_block_is_as_others_know_it() {
    let Golden { folder, trust, .. } = load("chain");
    let place = TempDir::new().unwrap();
    let identities = groundtackle_backup_unpack::Identities::read(&identity()).unwrap();
    let repository = groundtackle_backup_unpack::Repository::open(folder, &[trust]).unwrap();
    let out = place.path().join("coins.csv");
    let (position, set) = repository
        .unpack(None, At::Height(170), &identities, &out)
        .unwrap();
    assert_eq!((position.height, set.coins), (170, 171));
    let known = "b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30";
    assert_eq!(set.muhash.reversed().to_string(), known);
}

/// A copy in which objects can be damaged.
fn copy(golden: &Golden) -> (TempDir, Vec<(String, Vec<u8>)>) {
    let folder = TempDir::new().unwrap();
    let objects = read(&golden.folder);
    write(&objects, folder.path());
    (folder, objects)
}

#[test]
fn flipped_bits_are_found_or_harmless() {
    let (mut seed, mut flips, mut harmless, mut unneeded) = (11_u64, 0, 0, 0);
    for name in ["chain", "branches"] {
        let golden = load(name);
        let (folder, objects) = copy(&golden);
        for (key, body) in &objects {
            let path = folder.path().join(key);
            // A set that needs the object: without it there is none.
            fs::remove_file(&path).unwrap();
            let needed = golden.answers.iter().find(|(at, _)| {
                match unpack(folder.path(), golden.trust, *at) {
                    Err(Error::Missing(object)) => {
                        assert_eq!(object, *key);
                        true
                    }
                    Err(Error::Unreachable(_)) => key.starts_with("points/"),
                    Err(other) => panic!("{other:?}"),
                    Ok(_) => false,
                }
            });
            // A base that nothing begins with is in nobody's way.
            let (at, wanted) = match needed {
                Some(needed) => needed,
                None => {
                    assert!(key.starts_with("packs/"), "nobody needs {key}");
                    unneeded += 1;
                    fs::write(&path, body).unwrap();
                    continue;
                }
            };
            for _ in 0..100 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bit = (seed >> 33) as usize % (body.len() * 8);
                let mut damaged = body.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, damaged).unwrap();
                match unpack(folder.path(), golden.trust, *at) {
                    Err(Error::Damaged(..) | Error::Untrusted(_)) => {}
                    Err(other) => panic!("bit {bit} of {key}: {other:?}"),
                    // What a hint says of the signer changes nothing of what is signed.
                    Ok(table) => {
                        assert!(!key.starts_with("packs/"), "bit {bit} of {key}");
                        assert_eq!(sum(&table), *wanted);
                        harmless += 1;
                    }
                }
                flips += 1;
            }
            for length in [0, 1, body.len() / 2, body.len() - 1] {
                fs::write(&path, &body[..length]).unwrap();
                let error = unpack(folder.path(), golden.trust, *at).unwrap_err();
                assert!(
                    matches!(error, Error::Damaged(..)),
                    "{length} of {key}: {error:?}"
                );
            }
            fs::write(&path, body).unwrap();
            assert_eq!(
                sum(&unpack(folder.path(), golden.trust, *at).unwrap()),
                *wanted
            );
        }
    }
    assert!(unneeded <= 1, "{unneeded}");
    assert!(
        flips >= 1_000 && harmless * 10 < flips,
        "{harmless} of {flips}"
    );
}

#[test]
fn signatures_are_bounded() {
    let golden = load("chain");
    let (folder, objects) = copy(&golden);
    let (key, body) = objects
        .iter()
        .find(|(key, _)| key.starts_with("points/"))
        .unwrap();
    let mut envelope: serde_json::Value = serde_json::from_slice(body).unwrap();
    for (count, fine) in [(16, true), (17, false)] {
        let signatures = envelope["signatures"].as_array_mut().unwrap();
        signatures.resize(count, signatures[0].clone());
        fs::write(folder.path().join(key), envelope.to_string()).unwrap();
        let opened = groundtackle_backup_unpack::Repository::open(folder.path(), &[golden.trust]);
        let opened = opened.unwrap();
        assert_eq!(
            opened.unusable().is_empty(),
            fine,
            "{:?}",
            opened.unusable()
        );
    }
}

/// Objects that are whole, in each other's place.
#[test]
fn exchanged_objects_are_found() {
    let golden = load("chain");
    let (folder, objects) = copy(&golden);
    let kinds = ["points/", "packs/"].map(|kind| {
        let keys = objects.iter().filter(|(key, _)| key.starts_with(kind));
        keys.collect::<Vec<_>>()
    });
    for objects in &kinds {
        for pair in objects.windows(2) {
            let [(a, body), (b, other)] = pair else {
                panic!("two objects");
            };
            fs::write(folder.path().join(a), other).unwrap();
            fs::write(folder.path().join(b), body).unwrap();
            let all = golden.answers.iter().map(|(at, _)| at);
            let errors = all.filter_map(|at| unpack(folder.path(), golden.trust, *at).err());
            let errors: Vec<_> = errors.collect();
            assert!(!errors.is_empty());
            let damaged = |error: &Error| matches!(error, Error::Damaged(..));
            assert!(errors.iter().all(damaged), "{errors:?}");
            fs::write(folder.path().join(a), body).unwrap();
            fs::write(folder.path().join(b), other).unwrap();
        }
    }
    // A repository of the same kind by somebody else.
    let others = load("branches");
    let error = unpack(&others.folder, golden.trust, At::Latest).unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)), "{error:?}");
    // Its objects among these.
    let (key, body) = &read(&others.folder)
        .into_iter()
        .find(|(key, _)| key.starts_with("points/"))
        .unwrap();
    fs::write(folder.path().join(key), body).unwrap();
    let error = unpack(folder.path(), golden.trust, At::Latest).unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)), "{error:?}");
    let repository =
        groundtackle_backup_unpack::Repository::open(folder.path(), &[golden.trust, others.trust]);
    let repository = repository.unwrap();
    assert!(matches!(repository.unusable(), [Error::Damaged(..)]));
}

#[test]
fn what_is_there_stays_and_other_keys_open_nothing() {
    let Golden { folder, trust, .. } = load("chain");
    let place = TempDir::new().unwrap();
    let out = place.path().join("coins.csv");
    fs::write(&out, "mine").unwrap();
    let open = || groundtackle_backup_unpack::Repository::open(&folder, &[trust]).unwrap();
    let mine = groundtackle_backup_unpack::Identities::read(&identity()).unwrap();
    let error = open().unpack(None, At::Latest, &mine, &out).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");

    let other = age::x25519::Identity::generate().to_string();
    let path = place.path().join("other.txt");
    fs::write(&path, other.expose_secret()).unwrap();
    let others = groundtackle_backup_unpack::Identities::read(&path).unwrap();
    let out = place.path().join("new.csv");
    let error = open().unpack(None, At::Latest, &others, &out).unwrap_err();
    assert!(matches!(error, Error::WrongKey(..)), "{error:?}");
    let shown = format!("{others:?} {error:?} {error}");
    assert!(!shown.contains(&other.expose_secret()[16..40]));
    let error = open()
        .unpack(Some("other"), At::Latest, &mine, &out)
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(!out.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes of any kind where something signed should be, and where identities should be.
    #[test]
    fn any_bytes_end_with_an_answer(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        object in any::<prop::sample::Index>(),
    ) {
        let golden = load("chain");
        let signed: Vec<_> = read(&golden.folder)
            .into_iter()
            .filter(|(key, _)| !key.starts_with("packs/"))
            .collect();
        let (key, body) = &signed[object.index(signed.len())];
        let mut changed = body.clone();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        let folder = TempDir::new().unwrap();
        write(&signed, folder.path());
        for damaged in [&bytes, &changed] {
            fs::write(folder.path().join(key), damaged).unwrap();
            let _ = groundtackle_backup_unpack::Repository::open(folder.path(), &[golden.trust]);
        }
        let path = folder.path().join("identities");
        fs::write(&path, &bytes).unwrap();
        let _ = groundtackle_backup_unpack::Identities::read(&path);
    }
}
