//! Each bad input has a message that names the thing and the way out, its exit code, and no loss.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use groundtackle_chain::Network;
use support::{Place, Ran, answers, blocks, data, framed, ops, signal, write_blocks};

const WAY_OUT: &str = "what to do";

/// A store at height 299, and what must not change there.
fn filled() -> (Place, serde_json::Value) {
    let place = Place::new();
    place.sync_to(299);
    let stats = place.stats();
    assert_eq!(stats, answers()[&299]);
    (place, stats)
}

fn sync(place: &Place, file: &Path, args: &[&str]) -> Ran {
    place.utxo(
        "sync",
        &[&["--blocks", file.to_str().unwrap()], args].concat(),
    )
}

/// The good files still lead to the known end.
#[track_caller]
fn ends_well(place: &Place) {
    place.sync_to(599);
    assert_eq!(place.stats(), answers()[&599]);
}

#[test]
fn a_truncated_block_file() {
    let (place, before) = filled();
    let whole = data().join("blk00001.dat");
    let file = place.file("blk00001.dat");
    let bytes = fs::read(&whole).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100] {
        fs::write(&file, &bytes[..length]).unwrap();
        let list = format!(
            "{},{}",
            data().join("blk00000.dat").display(),
            file.display()
        );
        let ran = sync(&place, Path::new(&list), &[]).exits(65);
        ran.says(&[
            file.to_str().unwrap(),
            "at offset",
            "copy",
            "--partial-tail",
        ]);
        assert_eq!(place.stats(), before);

        // The way out that the message names.
        sync(&place, Path::new(&list), &["--partial-tail"]).exits(0);
        assert!(place.stats()["height"].as_u64() >= Some(299));
        place.utxo("rewind", &["--to", "299"]).exits(0);
        assert_eq!(place.stats(), before);
    }
    ends_well(&place);
}

#[test]
fn an_empty_block_file() {
    let (place, before) = filled();
    let file = place.file("blk00000.dat");
    fs::write(&file, "").unwrap();
    sync(&place, &file, &[])
        .exits(65)
        .says(&[file.to_str().unwrap(), "is empty", "copy it again"]);
    assert_eq!(place.stats(), before);
}

#[test]
fn no_block_file() {
    let (place, before) = filled();
    let missing = place.file("missing.dat");
    sync(&place, &missing, &[])
        .exits(66)
        .says(&[missing.to_str().unwrap(), "check that it exists"]);
    let folder = place.file("");
    sync(&place, &folder, &[])
        .exits(66)
        .says(&["holds no blk*.dat file"]);
    assert_eq!(place.stats(), before);
}

#[test]
fn a_corrupted_body_keeps_all_before_it() {
    let (place, _) = filled();
    let file = place.file("blk00000.dat");
    let mut blocks = blocks();
    let last = blocks[400].len() - 10;
    blocks[400][last] ^= 1;
    write_blocks(&file, Network::Main, &blocks);
    let ran = sync(&place, &file, &[]).exits(65).says(&[
        "block 400",
        file.to_str().unwrap(),
        "is damaged",
        "copy",
    ]);
    assert_eq!(ran.event("failed")["height"], 399);
    assert_eq!(place.stats()["height"], 399);
    ends_well(&place);
}

#[test]
fn a_corrupted_header() {
    let (place, before) = filled();
    let file = place.file("blk00000.dat");
    let mut blocks = blocks();
    blocks[400][40] ^= 1;
    write_blocks(&file, Network::Main, &blocks);
    sync(&place, &file, &[]).exits(65).says(&[
        "proof of work",
        file.to_str().unwrap(),
        "copy the file again",
    ]);
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn a_corrupted_frame() {
    let (place, before) = filled();
    let file = place.file("blk00000.dat");
    let mut bytes = fs::read(data().join("blk00001.dat")).unwrap();
    let second = 8 + u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[second] ^= 1;
    fs::write(&file, bytes).unwrap();
    let offset = format!("at offset {second}");
    sync(&place, &file, &[]).exits(65).says(&[
        file.to_str().unwrap(),
        &offset,
        "copy the file again",
    ]);

    fs::write(&file, "these are no blocks").unwrap();
    sync(&place, &file, &[])
        .exits(65)
        .says(&[file.to_str().unwrap(), "neither a block file of main"]);
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn blocks_of_another_network() {
    let (place, before) = filled();
    let ran = sync(&place, &data(), &["--network", "testnet3"]).exits(65);
    ran.says(&[
        "blocks of main",
        "testnet3 was asked for",
        WAY_OUT,
        "--network main",
    ]);

    let file = place.file("blk00000.dat");
    let mut mixed = framed(Network::Main, &blocks()[0]);
    mixed.extend(framed(Network::Signet, &blocks()[1]));
    fs::write(&file, mixed).unwrap();
    sync(&place, &file, &[])
        .exits(65)
        .says(&["blocks of signet", "main was asked for"]);
    place
        .utxo("sync", &["--blocks", "x", "--network", "moon"])
        .exits(2)
        .says(&["moon", "testnet4"]);
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn a_missing_block() {
    let (place, before) = filled();
    let file = place.file("blk00000.dat");
    let mut blocks = blocks();
    blocks.remove(400);
    write_blocks(&file, Network::Main, &blocks);
    sync(&place, &file, &[]).exits(65).says(&[
        "the chain ends with block 399",
        "add the missing file",
        "end at 399",
    ]);
    assert_eq!(place.stats(), before);
    // The way out that the message names.
    sync(&place, &file, &["--to", "399"]).exits(0);
    assert_eq!(place.stats()["height"], 399);
    sync(&place, &file, &["--to", "400"]).exits(65);
    ends_well(&place);
}

#[test]
fn files_that_do_not_reach_the_store() {
    let place = Place::new();
    let file = data().join("blk00001.dat");
    // An empty store begins with the genesis block.
    sync(&place, &file, &[])
        .exits(65)
        .says(&["block 0", "add the files"]);
    place.sync_to(9);
    let before = place.stats();
    sync(&place, &file, &[])
        .exits(65)
        .says(&["block 9", before["bestblock"].as_str().unwrap()]);
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn files_that_end_early() {
    let (place, before) = filled();
    sync(&place, &data(), &["--to", "600"]).exits(65).says(&[
        "ends with block 599",
        "600 was asked for",
        "later files",
    ]);
    assert_eq!(place.stats(), before);
}

#[test]
fn blocks_out_of_order_are_put_in_order() {
    let place = Place::new();
    let file = place.file("blk00000.dat");
    let mut blocks = blocks();
    blocks.reverse();
    let twice = blocks[17].clone();
    blocks.push(twice);
    write_blocks(&file, Network::Main, &blocks);
    sync(&place, &file, &[]).exits(0);
    assert_eq!(place.stats(), answers()[&599]);
}

#[test]
fn a_block_that_claims_four_gigabytes() {
    let (place, before) = filled();
    let file = place.file("blk00000.dat");
    let mut bytes = framed(Network::Main, &blocks()[300]);
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());

    fs::write(&file, &bytes).unwrap();
    let claims = "claims a record of 4294967295 bytes";
    sync(&place, &file, &[])
        .exits(65)
        .says(&[file.to_str().unwrap(), claims, "copy again"]);

    // So long a file takes no room on the disk, and must take none in memory.
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    sync(&place, &file, &[]).exits(65).says(&[
        file.to_str().unwrap(),
        "has 4294967295 bytes",
        "32MiB",
        WAY_OUT,
        "--max-block-size",
    ]);
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn a_second_process_on_the_same_store() {
    let (place, before) = filled();
    // Nobody ever writes there, so the first process waits with the store open.
    let pipe = place.file("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut first = place
        .command("sync", &["--blocks", pipe.to_str().unwrap()])
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("opened"), "{line}");

    let folder = place.store();
    let in_use = [
        folder.to_str().unwrap(),
        "in use by another process",
        "stop that one first",
    ];
    place.utxo("stats", &[]).exits(75).says(&in_use);
    place.utxo("rewind", &["--to", "0"]).exits(75).says(&in_use);
    sync(&place, &data(), &[]).exits(75).says(&in_use);

    signal(&first, "-KILL");
    first.wait().unwrap();
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn a_store_of_a_newer_format() {
    let (place, before) = filled();
    let header = place.store().join("FORMAT");
    let text = fs::read_to_string(&header).unwrap();
    fs::write(&header, text.replace("format 1\n", "format 4711\n")).unwrap();
    for ran in [
        place.utxo("stats", &[]),
        place.utxo("rewind", &["--to", "0"]),
        sync(&place, &data(), &[]),
    ] {
        ran.exits(69).says(&[
            place.store().to_str().unwrap(),
            "format 4711",
            "use a newer version",
        ]);
    }
    fs::write(&header, text).unwrap();
    assert_eq!(place.stats(), before);
    ends_well(&place);
}

#[test]
fn a_store_that_was_made_with_other_options() {
    let (mut place, before) = filled();
    place.options = "?unspendable=false-return";
    let store = place.store();
    let agree = [store.to_str().unwrap(), "they must agree"];
    place.utxo("stats", &[]).exits(69).says(&agree);
    sync(&place, &data(), &[]).exits(69).says(&agree);
    place.options = "";
    assert_eq!(place.stats(), before);
}

#[test]
fn a_damaged_store() {
    let (place, before) = filled();
    let header = place.store().join("FORMAT");
    let text = fs::read(&header).unwrap();
    fs::write(&header, "scribbled over").unwrap();
    place
        .utxo("stats", &[])
        .exits(65)
        .says(&["FORMAT", "damaged", "restore the store"]);
    fs::write(&header, text).unwrap();
    assert_eq!(place.stats(), before);
}

#[test]
fn a_folder_of_something_else() {
    let place = Place::new();
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("letter.txt"), "dear").unwrap();
    place.utxo("stats", &[]).exits(66);
    sync(&place, &data(), &[]).exits(73).says(&[
        place.store().to_str().unwrap(),
        "name an empty or a new folder",
    ]);
    assert_eq!(fs::read_dir(place.store()).unwrap().count(), 1);
}

#[test]
fn a_creation_that_was_cut_off() {
    let place = Place::new();
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("FORMAT.new"), "groundtackle-utxo-st").unwrap();
    place.utxo("stats", &[]).exits(66);
    ends_well(&place);
}

#[test]
fn a_store_that_cannot_be_created() {
    let place = Place::new();
    fs::write(place.file("file"), "").unwrap();
    let url = format!("embedded:{}", place.file("file").join("store").display());
    let ran = ops(&[
        "utxo",
        "sync",
        "--store",
        &url,
        "--blocks",
        data().to_str().unwrap(),
    ]);
    ran.exits(73).says(&[&url, "because", WAY_OUT]);
    ops(&["utxo", "stats", "--store", &url]).exits(66);
}

#[test]
fn standard_output_that_takes_nothing() {
    let (place, before) = filled();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(place.command("stats", &[]).stdout(full).output().unwrap());
    ran.exits(74)
        .says(&["standard output could not be written", "because"]);
    assert_eq!(place.stats(), before);
}

#[test]
fn standard_error_that_takes_nothing() {
    let place = Place::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let blocks = data();
    let mut sync = place.command("sync", &["--blocks", blocks.to_str().unwrap()]);
    let ran = Ran::from(sync.stderr(full()).output().unwrap()).exits(0);
    assert_eq!(ran.event("synced")["height"], 599);
    let mut refused = place.command("stats", &["--no-such-option"]);
    assert_eq!(
        refused.stderr(full()).output().unwrap().status.code(),
        Some(2)
    );
    let mut no = place.command("rewind", &["--to", "600"]);
    assert_eq!(no.stderr(full()).output().unwrap().status.code(), Some(2));
}

/// A small file system in memory, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said loudly, for those who may not mount.
    fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&folder)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("SKIPPED: the test of a full disk mounts a tmpfs, and that takes root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

/// Leaves `bytes` of room on a disk.
fn fill(disk: &Path, bytes: u64) -> PathBuf {
    let path = disk.join("filler");
    let mut filler = File::create(&path).unwrap();
    let chunk = vec![1; 1 << 16];
    // Ever smaller pieces, until not a byte more goes in.
    for size in [1 << 16, 1 << 12, 1] {
        while filler.write_all(&chunk[..size]).is_ok() {}
    }
    let length = filler.metadata().unwrap().len();
    filler.set_len(length - bytes).unwrap();
    path
}

/// Takes the filler away. A program that is just being started may still hold it, so it is emptied first.
fn free(filler: &Path) {
    File::create(filler).unwrap();
    fs::remove_file(filler).unwrap();
}

#[test]
fn a_full_disk() {
    // The store keeps a reserve; without one it is the system that says no.
    for (options, room) in [("?min_free=8MiB", 7 << 20), ("?min_free=0B", 40 << 10)] {
        let mut place = Place::new();
        place.options = options;
        let Some(disk) = SmallDisk::mount(place.file("disk"), "64m") else {
            return;
        };
        place.elsewhere = Some(disk.0.join("store"));

        // No room from the start.
        let filler = fill(&disk.0, 0);
        sync(&place, &data(), &[]).exits(74).says(&[
            disk.0.to_str().unwrap(),
            "no room left",
            "free space",
        ]);
        free(&filler);

        // No room half-way.
        place.sync_to(299);
        let before = place.stats();
        assert_eq!(before, answers()[&299]);
        let filler = fill(&disk.0, room);
        let ran = sync(&place, &data(), &["--flush-every", "1"]).exits(74);
        let lines = ran.lines();
        let durable = lines.iter().filter(|line| line["event"] == "durable");
        let durable = durable
            .filter_map(|line| line["height"].as_u64())
            .max()
            .unwrap_or(299);
        let ran = ran.says(&[
            disk.0.to_str().unwrap(),
            "no room left",
            "nothing that was acknowledged is lost",
            "free space",
        ]);
        println!("{options}: full above height {durable}: {}", ran.stderr);

        // Reading goes on.
        let after = place.stats();
        free(&filler);
        assert_eq!(place.stats(), after);
        let height = after["height"].as_u64().unwrap();
        assert!((durable..599).contains(&height), "{height} after {durable}");
        if height == 299 {
            assert_eq!(after, before);
        }
        let height = u32::try_from(height).unwrap();
        assert_eq!(
            place.sync_to(599).event("started")["first_height"],
            height + 1
        );
        assert_eq!(place.stats(), answers()[&599]);
        place.utxo("rewind", &["--to", "299"]).exits(0);
        assert_eq!(place.stats(), before);
    }
}
