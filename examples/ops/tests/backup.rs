//! Backups and restores by the program itself.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::backups::{Backups, IDENTITY, RECIPIENT, text};
use support::{Ran, answers, ops};

fn stats(store: &str) -> Value {
    ops(&["utxo", "stats", "--json", "--store", store])
        .exits(0)
        .answer()
}

#[test]
fn every_known_height_comes_back() {
    let backups = Backups::new();
    backups.sync_to(9);
    let first = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(
        (&first["made"], &first["height"]),
        (&"base".into(), &9.into())
    );
    for height in [170, 256, 400] {
        backups.sync_to(height);
        let made = backups.backup("run", &[]).exits(0).answer();
        assert_eq!(
            (&made["made"], &made["height"]),
            (&"delta".into(), &height.into())
        );
    }
    let nothing = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(nothing["made"], "nothing");
    backups.sync_to(599);
    backups.backup("run", &["--base"]).exits(0);
    backups.backup("run", &[]).exits(0);

    let listed = backups.backup("list", &[]).exits(0).lines();
    let made: Vec<_> = listed
        .iter()
        .map(|point| point["made"].as_str().unwrap())
        .collect();
    assert_eq!(made, ["base", "delta", "delta", "delta", "base", "delta"]);
    for depth in ["presence", "bytes", "read"] {
        let checked = backups
            .backup("check", &["--depth", depth])
            .exits(0)
            .answer();
        assert_eq!(checked["points"], 6);
        assert_eq!(checked["segments"] != 0, depth == "read", "{checked}");
    }

    for (height, known) in answers().range(9..) {
        let into = backups.other(&height.to_string());
        let restored = backups
            .restore(&height.to_string(), &into)
            .exits(0)
            .answer();
        assert_eq!(restored["muhash"], known["muhash"]);
        assert_eq!(stats(&into), *known);
    }
    let into = backups.other("latest");
    backups.restore("latest", &into).exits(0);
    assert_eq!(stats(&into), answers()[&599]);
    let hash = answers()[&170]["bestblock"].as_str().unwrap().to_owned();
    let into = backups.other("by hash");
    backups.restore(&hash, &into).exits(0);
    assert_eq!(stats(&into), answers()[&170]);
}

/// A drill passes at each level; what breaks then fails it, and the evidence of both stays and is signed.
#[test]
fn drills_pass_until_something_breaks() {
    let backups = Backups::new();
    backups.sync_to(170);
    backups.backup("run", &[]).exits(0);
    backups.sync_to(256);
    backups.backup("run", &[]).exits(0);
    backups.backup("evidence", &[]).exits(0);
    for level in ["chain", "presence", "bytes", "read", "replay"] {
        let held = backups.backup("drill", &["--level", level]).exits(0);
        let held = held.answer();
        assert_eq!(
            (&held["outcome"], &held["level"]),
            (&"passed".into(), &level.into())
        );
        assert_eq!(held["height"], 256);
        assert_eq!(held["restored"], level == "replay");
    }
    let known = &answers()[&170];
    for choose in ["170", known["bestblock"].as_str().unwrap(), "oldest"] {
        let held = backups.backup("drill", &["--choose", choose]).exits(0);
        let held = held.answer();
        assert_eq!(held["muhash"], known["muhash"]);
        assert_eq!(held["bestblock"], known["bestblock"]);
    }
    for choose in ["random", "random-height"] {
        backups.backup("drill", &["--choose", choose]).exits(0);
    }
    let scratch = backups.other("scratch");
    let load = |scratch: &str| backups.backup("drill", &["--level", "load", "--scratch", scratch]);
    let held = load(&scratch).exits(0).answer();
    assert!(held["proofs"].as_array().unwrap().len() > 3, "{held}");
    assert_eq!(stats(&scratch), answers()[&256]);

    // Not where it is in use, by whatever name, nor twice in one place.
    load(&scratch).exits(1).says(&["not empty"]);
    let folder = backups.place.store();
    let (above, name) = (folder.parent().unwrap(), folder.file_name().unwrap());
    let same = format!(
        "embedded:{}/signer/../{}",
        above.display(),
        name.to_str().unwrap()
    );
    fs::create_dir(above.join("signer")).unwrap();
    for url in [backups.place.url(), same] {
        load(&url).exits(1).says(&["production"]);
    }
    assert_eq!(stats(&backups.place.url())["height"], 256);
    for args in [
        &["--level", "load"][..],
        &["--level", "serve"],
        &["--level", "deep"],
        &["--choose", "best"],
        &["--scratch", &scratch],
        &["--if-due"],
    ] {
        backups.backup("drill", args).exits(2);
    }
    // The last one failed.
    backups.backup("evidence", &[]).exits(1);

    // A schedule, and objectives.
    backups.write_config(
        "[drill]\nevery = \"1h\"\nrecovery_time = \"10m\"\nrecovery_point_blocks = 10\n",
    );
    let waits = backups.backup("drill", &["--if-due"]).exits(0).answer();
    assert_eq!(waits["due"], "not-yet");
    let held = backups.backup("drill", &[]).exits(0).answer();
    assert_eq!(held["recovery_point_blocks"], 0);
    assert!(held["recovery_seconds"].as_f64().unwrap() > 0.0, "{held}");
    backups
        .backup("drill", &["--tip", "267"])
        .exits(1)
        .says(&["11 blocks", "10"]);
    backups.backup("drill", &[]).exits(0);
    let good = backups.backup("evidence", &[]).exits(0).answer();
    assert_eq!(good["objectives_met"], true);
    assert_eq!(good["due"], "not-yet");
    let config = text(&backups.config);
    let metrics = ops(&["backup", "evidence", "--metrics", "--config", config]).exits(0);
    let line = "groundtackle_drill_last_good_height{stream=\"utxo\"} 256";
    assert!(metrics.stdout.contains(line), "{metrics:?}");

    // Damage.
    let packs = backups.objects().into_iter();
    let packs: Vec<_> = packs.filter(|path| text(path).contains("packs")).collect();
    for pack in &packs {
        let mut body = fs::read(pack).unwrap();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        fs::write(pack, body).unwrap();
    }
    let failed = backups.backup("drill", &["--level", "replay"]).exits(1);
    let failed = failed.says(&["the drill failed", "packs/", "damaged"]);
    assert_eq!(failed.answer()["outcome"], "failed");
    let listed = backups.backup("evidence", &[]).exits(1);
    let listed = listed.says(&["the last drill failed"]).lines();
    let (figures, drills) = listed.split_last().unwrap();
    assert_eq!(figures["last_drill_outcome"], "failed");
    assert_eq!(figures["last_good_drill_height"], 256);
    assert_eq!(figures["last_backup_height"], 256);
    let count = |outcome: &str| {
        drills
            .iter()
            .filter(|one| one["outcome"] == outcome)
            .count()
    };
    assert_eq!((count("passed"), count("failed")), (13, 5));

    // Somebody changes what was found.
    let mut evidence = backups.objects().into_iter();
    let evidence = evidence.find(|path| text(path).contains("drills")).unwrap();
    let mut body = fs::read(&evidence).unwrap();
    body[200] = if body[200] == b'A' { b'B' } else { b'A' };
    fs::write(&evidence, body).unwrap();
    backups
        .backup("evidence", &[])
        .exits(69)
        .says(&["drills/", "trusted"]);
}

#[test]
fn what_is_wrong_is_named() {
    let backups = Backups::new();
    backups
        .restore("latest", &backups.other("a"))
        .exits(2)
        .says(&["no restore point"]);
    backups.backup("init", &[]).exits(69).says(&["already"]);
    backups.backup("run", &[]).exits(66).says(&["no store"]);
    backups.sync_to(200);
    let without = backups.place.file("journal");
    fs::rename(&without, backups.place.file("elsewhere")).unwrap();
    backups
        .backup("run", &[])
        .exits(69)
        .says(&["no journal", "--journal"]);
    fs::rename(backups.place.file("elsewhere"), &without).unwrap();
    backups.backup("run", &[]).exits(0);
    backups
        .restore("201", &backups.other("b"))
        .exits(2)
        .says(&["201", "from 200 to 200"]);
    backups
        .restore("7x", &backups.other("b"))
        .exits(2)
        .says(&["7x"]);
    let full = backups.place.url();
    backups
        .restore("latest", &full)
        .exits(69)
        .says(&["not empty"]);
    assert_eq!(stats(&full)["height"], 200);

    // Somebody else's key, and nobody's.
    let other = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU";
    let identities = backups.place.file("identity.txt");
    fs::write(&identities, other).unwrap();
    let refused = backups
        .restore("latest", &backups.other("c"))
        .exits(69)
        .says(&[RECIPIENT]);
    assert!(!refused.stderr.contains("AGE-SECRET"), "{refused:#?}");
    fs::write(&identities, "# none\n").unwrap();
    backups
        .restore("latest", &backups.other("c"))
        .exits(69)
        .says(&["no identity"]);
    fs::write(&identities, IDENTITY).unwrap();
    backups.write_config(&format!("trusted = [\"{}\"]\n", "ab".repeat(32)));
    backups
        .restore("latest", &backups.other("c"))
        .exits(69)
        .says(&["trusted"]);
    for (network, says) in [("regtest", "of network main"), ("nonet", "nonet")] {
        backups.write_config(&format!("network = {network:?}\n"));
        for command in ["list", "run", "check"] {
            backups.backup(command, &[]).exits(2).says(&[says, network]);
        }
    }
    backups.write_config("network = \"main\"\n");
    backups.backup("list", &[]).exits(0);
    backups.write_config("colour = 3\n");
    backups
        .restore("latest", &backups.other("c"))
        .exits(2)
        .says(&["colour"]);
    for secret in [
        "stor = \"postgres://u:geheim@h/db\"\n",
        "store = \"postgres://u:geheim@h/db\n",
        "s3 = { geheim = 3",
    ] {
        backups.write_config(secret);
        let refused = backups.backup("list", &[]).exits(2).says(&["near line"]);
        let shown = refused.stderr.contains("geheim") && !secret.starts_with("s3");
        assert!(!shown, "{refused:#?}");
    }
    backups.write_config("");

    // Where a restore point can't be used, nobody knows which is the last.
    let point = backups
        .objects()
        .into_iter()
        .find(|path| text(path).contains("points/"))
        .unwrap();
    let signed = fs::read(&point).unwrap();
    fs::write(&point, &signed[1..]).unwrap();
    for at in ["latest", "200"] {
        backups
            .restore(at, &backups.other("c"))
            .exits(65)
            .says(&["points/"]);
    }
    backups
        .backup("list", &[])
        .exits(0)
        .says(&["points/", "can't be used"]);
    fs::write(&point, signed).unwrap();

    // Damage.
    let pack = backups
        .objects()
        .into_iter()
        .find(|path| text(path).contains("packs"))
        .unwrap();
    let whole = fs::read(&pack).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&pack, damaged).unwrap();
    backups
        .backup("check", &[])
        .exits(65)
        .says(&["packs/", "damaged"]);
    backups.backup("check", &["--depth", "presence"]).exits(0);
    backups
        .restore("latest", &backups.other("d"))
        .exits(65)
        .says(&["packs/", "damaged"]);
    // What is there of it is no store; the same restore goes on once the object is back.
    fs::write(&pack, whole).unwrap();
    backups.backup("check", &["--depth", "read"]).exits(0);
    backups.restore("latest", &backups.other("d")).exits(0);
    assert_eq!(stats(&backups.other("d"))["height"], 200);
    fs::remove_file(&pack).unwrap();
    backups
        .backup("check", &["--depth", "presence"])
        .exits(65)
        .says(&["packs/", "missing"]);
}

#[test]
fn what_is_not_kept_goes() {
    let backups = Backups::new();
    for (height, base) in [
        (9, true),
        (50, false),
        (100, false),
        (170, true),
        (200, false),
    ] {
        backups.sync_to(height);
        let args: &[&str] = if base { &["--base"] } else { &[] };
        backups.backup("run", args).exits(0);
    }
    let names = || -> Vec<String> {
        let listed = backups.backup("list", &[]).exits(0).lines();
        let names = listed.iter().map(|point| point["point"].as_str());
        names.map(|name| name.unwrap().to_owned()).collect()
    };
    let all = names();
    backups
        .backup("forget", &[])
        .exits(2)
        .says(&["[retention]", "--point"]);
    backups.write_config("[retention]\n");
    backups
        .backup("forget", &[])
        .exits(2)
        .says(&["all would go"]);
    backups.write_config("[retention]\ndayly = 3\n");
    backups.backup("forget", &[]).exits(2).says(&["dayly"]);
    backups.write_config("[retention]\nlast = 1\n");
    // The last delta is at 200, and goes from 100 over the base at 170.
    let would = backups.backup("forget", &["--dry-run"]).exits(0).answer();
    let go: Vec<_> = would["go"].as_array().unwrap().iter().collect();
    assert_eq!(names(), all);
    assert_eq!(would["keep"][0][0], all[4]);
    let forgot = backups.backup("forget", &[]).exits(0).answer();
    assert_eq!(forgot["forgotten"], go.len());
    assert_eq!(go, all[..3].iter().collect::<Vec<_>>());
    assert_eq!(names(), all[3..]);
    assert_eq!(
        backups.backup("forget", &[]).exits(0).answer()["forgotten"],
        0
    );
    let undone = ["--undo", "--point", &all[0]];
    let undone = backups.backup("forget", &undone).exits(0).answer();
    assert_eq!(undone["offered_again"], 1);
    assert_eq!(names().len(), 3);
    backups.backup("forget", &["--point", &all[0]]).exits(0);
    let nobody = "12".repeat(16);
    backups
        .backup("forget", &["--point", &nobody])
        .exits(69)
        .says(&["no restore point", &nobody]);

    // Too early, too short, and alone.
    let early = backups.backup("prune", &[]).exits(0).answer();
    assert_eq!((&early["points"], &early["packs"]), (&0.into(), &0.into()));
    backups
        .backup("prune", &["--grace", "1h"])
        .exits(69)
        .says(&["nobody else writes"]);
    backups.backup("prune", &["--grace", "soon"]).exits(2);
    let alone = ["--grace", "0s", "--nobody-else-writes"];
    let before = backups.objects();
    let would = backups
        .backup("prune", &[&alone[..], &["--dry-run"]].concat())
        .exits(0)
        .answer();
    assert_eq!(backups.objects(), before);
    let pruned = backups.backup("prune", &alone).exits(0).answer();
    assert_eq!(
        (&pruned["points"], &pruned["packs"]),
        (&3.into(), &3.into())
    );
    assert_eq!(would["bytes"], pruned["bytes"]);
    // A point, a tombstone and a pack each.
    assert_eq!(backups.objects().len(), before.len() - 9);
    let again = backups.backup("prune", &alone).exits(0).answer();
    assert_eq!(again["points"], 0);

    assert_eq!(names(), all[3..]);
    backups.backup("check", &["--depth", "read"]).exits(0);
    for height in [170, 200] {
        let into = backups.other(&height.to_string());
        backups.restore(&height.to_string(), &into).exits(0);
        assert_eq!(stats(&into)["height"], height);
    }
    backups
        .restore("9", &backups.other("gone"))
        .exits(2)
        .says(&["height 9"]);
    // It goes on.
    backups.sync_to(256);
    let made = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(made["made"], "delta");
    let into = backups.other("256");
    backups.restore("latest", &into).exits(0);
    assert_eq!(stats(&into), answers()[&256]);
}

/// Fewer restore points lead to the same heights, and a whole one comes of them without the store.
#[test]
fn changes_are_written_together_and_folded() {
    let backups = Backups::new();
    for height in (0..=100).step_by(5) {
        backups.sync_to(height);
        backups.backup("run", &[]).exits(0);
    }
    let store = backups.place.store();
    let aside = store.with_extension("aside");
    fs::rename(&store, &aside).unwrap();
    let compact = |args: &[&str]| backups.backup("compact", args).exits(0).answer();
    let made = compact(&["--roll-up", "20,40", "--fold"]);
    let rolled_up = made["rolled_up"].as_array().unwrap();
    let blocks: Vec<_> = rolled_up.iter().map(|point| &point["blocks"]).collect();
    assert_eq!(blocks, [15, 20, 20, 20, 20, 35, 40]);
    let folded = &made["folded"];
    assert_eq!(
        (&folded["made"], &folded["height"]),
        (&"base".into(), &100.into())
    );
    let again = compact(&["--roll-up", "20,40", "--fold"]);
    assert_eq!(
        (&again["rolled_up"], &again["folded"]),
        (&serde_json::json!([]), &Value::Null)
    );
    fs::rename(&aside, &store).unwrap();
    // It goes on as before.
    let nothing = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(nothing["made"], "nothing");
    backups.sync_to(170);
    let delta = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(delta["made"], "delta");
    backups.backup("check", &["--depth", "read"]).exits(0);
    for (height, known) in answers().range(..=170) {
        let into = backups.other(&height.to_string());
        backups.restore(&height.to_string(), &into).exits(0);
        assert_eq!(stats(&into), *known);
    }
}

/// What a delta goes on from is gone, though nothing of its own is.
#[test]
fn a_point_that_leads_nowhere_is_found() {
    let backups = Backups::new();
    for height in [9, 50] {
        backups.sync_to(height);
        backups.backup("run", &[]).exits(0);
    }
    backups.backup("check", &[]).exits(0);
    let listed = backups.backup("list", &[]).exits(0).lines();
    let base = listed[0]["point"].as_str().unwrap().to_owned();
    let point = backups.objects().into_iter().find(|path| {
        let path = text(path);
        path.contains("points/") && path.contains(&base)
    });
    fs::remove_file(point.unwrap()).unwrap();
    backups.backup("check", &[]).exits(2).says(&["50"]);
    backups
        .restore("latest", &backups.other("nowhere"))
        .exits(2)
        .says(&["50"]);
}

#[test]
fn the_journal_keeps_as_much_as_it_is_told_to() {
    let backups = Backups::new();
    let kept = || {
        let entries = fs::read_dir(backups.place.file("journal")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let height = |name: std::ffi::OsString| name.to_str()?.split_once('-')?.0.parse().ok();
        let mut heights: Vec<u32> = entries.map(name).filter_map(height).collect();
        heights.sort_unstable();
        heights
    };
    backups.sync_to(50);
    backups.backup("run", &[]).exits(0);
    assert_eq!(kept(), (0..=50).collect::<Vec<_>>(), "by default a week");
    backups.write_config("journal_keep_blocks = 10\n");
    backups.sync_to(100);
    assert_eq!(kept().len(), 101, "what is not backed up stays");
    backups.backup("run", &[]).exits(0);
    assert_eq!(kept(), (91..=100).collect::<Vec<_>>());
    backups.sync_to(105);
    let made = backups.backup("run", &[]).exits(0).answer();
    assert_eq!(made["made"], "delta");
    let into = backups.other("there");
    backups.restore("60", &into).exits(0);
    assert_eq!(stats(&into)["height"], 60);
}

/// Neither in the repository nor in anything that is said.
#[test]
fn secrets_stay_secret() {
    let backups = Backups::new();
    backups.sync_to(300);
    let mut said = Vec::new();
    let mut hear = |ran: Ran| said.push(format!("{ran:?}"));
    hear(backups.backup("run", &[]));
    hear(backups.backup("list", &[]));
    hear(backups.backup("check", &["--depth", "read"]));
    hear(backups.restore("250", &backups.other("a")));
    hear(backups.restore("300", &backups.other("b")));
    let seed = fs::read_to_string(backups.place.file("signer.key")).unwrap();
    let secrets = [seed.trim(), IDENTITY, &IDENTITY[20..50]];
    for said in &said {
        assert!(
            !secrets.iter().any(|secret| said.contains(secret)),
            "{said}"
        );
    }
    // No coin is readable: not a block's coinbase, in either order of its bytes.
    let coinbase = b"\x98\x20\x51\xfd\x1e\x4b\xa7\x44\xbb\xbe\x68\x0e\x1f\xee\x14\x67\x7b\xa1\xa3\xc3\x54\x0b\xf7\xb1\xcd\xb6\x06\xe8\x57\x23\x3e\x0e";
    let reversed: Vec<u8> = coinbase.iter().rev().copied().collect();
    let mut bytes = 0;
    for object in backups.objects() {
        let body = fs::read(&object).unwrap();
        bytes += body.len();
        let has = |what: &[u8]| body.windows(what.len()).any(|window| window == what);
        for secret in secrets {
            assert!(!has(secret.as_bytes()), "{}", object.display());
        }
        assert!(!has(coinbase) && !has(&reversed), "{}", object.display());
    }
    assert!(bytes > 10_000);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(backups.place.file("signer.key"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}

#[test]
fn several_places_make_up_for_each_other() {
    let backups = Backups::new();
    let (first, second) = (
        backups.place.file("repository"),
        backups.place.file("second"),
    );
    fs::create_dir(&second).unwrap();
    let one = fs::read_to_string(&backups.config).unwrap();
    let folder = format!("folder = {first:?}\n");
    assert!(one.contains(&folder));
    let places = |copies: &str| {
        let several = format!(
            "copies = {copies}\n[[target]]\nname = \"near\"\nfolder = {first:?}\n\
             [[target]]\nname = \"far\"\nfolder = {second:?}\n[lease]\nholder = \"a host\"\n"
        );
        fs::write(&backups.config, one.replace(&folder, &several)).unwrap();
    };
    let alone = |folder: &Path, height: &str| {
        let near = format!("folder = {first:?}\n");
        let only = one.replace(&near, &format!("folder = {folder:?}\n"));
        fs::write(&backups.config, only).unwrap();
        let into = format!("memory-{height}-{}", text(folder).len());
        backups.restore(height, &backups.other(&into)).exits(0);
    };
    // The empty one becomes a copy.
    places("\"primary\"");
    backups.sync_to(9);
    backups.backup("run", &[]).exits(0);
    alone(&second, "9");

    // Away, and back.
    places("\"primary\"");
    let away = backups.place.file("away");
    fs::rename(&second, &away).unwrap();
    backups.sync_to(20);
    let made = backups.backup("run", &[]).exits(0);
    assert!(made.stderr.contains("target far"), "{}", made.stderr);
    places("\"all\"");
    backups.sync_to(30);
    backups.backup("run", &[]).exits(74);
    fs::rename(&away, &second).unwrap();
    let made = backups.backup("run", &[]).exits(0);
    let told = "target far: 1 restore points that it missed";
    assert!(made.stderr.contains(told), "{}", made.stderr);
    alone(&second, "30");
    alone(&second, "20");

    // What one lacks comes from the other one.
    places("{ quorum = 2 }");
    fs::remove_dir_all(first.join("packs")).unwrap();
    let restored = backups.restore("30", &backups.other("mended")).exits(0);
    assert!(
        restored.stderr.contains("target near: reading a segment"),
        "{}",
        restored.stderr
    );
    // Taken and given back each time.
    let listed = backups.backup("list", &[]).exits(0).lines();
    assert_eq!(listed.len(), 3);
    let both = format!("{}[[target]]\nname = \"x\"\nfolder = \"x\"\n", one);
    fs::write(&backups.config, both).unwrap();
    let refused = backups.backup("list", &[]).exits(2);
    assert!(refused.stderr.contains("either by tables [[target]]"));
}
