//! `BlockFiles` over good and bad files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{all_framed, extend, framed, hash, header, regtest_block, regtest_chain};
use groundtackle_chain::{
    BlockFiles, BlockFilesConfig, BlockHash, BlockSource, ChainBlock, DecodeError, Error, Network,
    ProofOfWorkError, StartAfter, unmask,
};
use groundtackle_core::{ByteSize, Retryability};
use proptest::prelude::*;
use tempfile::TempDir;

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

fn config(network: Network) -> BlockFilesConfig {
    BlockFilesConfig::new(network)
}

fn regtest() -> BlockFilesConfig {
    config(Network::Regtest)
}

fn after(height: u32, hash: BlockHash) -> BlockFilesConfig {
    let mut config = regtest();
    config.after = Some(StartAfter {
        height,
        hash,
        previous_times: Vec::new(),
    });
    config
}

fn tolerant() -> BlockFilesConfig {
    let mut config = regtest();
    config.tolerate_partial_tail = true;
    config
}

async fn read_paths(
    paths: Vec<PathBuf>,
    config: BlockFilesConfig,
) -> Result<Vec<ChainBlock>, Error> {
    let mut source = BlockFiles::open(paths, config).await?;
    let mut blocks = Vec::new();
    while let Some(block) = source.next_block().await? {
        blocks.push(block);
    }
    assert_eq!(source.remaining_blocks(), 0);
    Ok(blocks)
}

async fn read(directory: &TempDir, config: BlockFilesConfig) -> Result<Vec<ChainBlock>, Error> {
    read_paths(vec![directory.path().to_owned()], config).await
}

/// Reads one block file with these bytes.
async fn read_file(bytes: &[u8], config: BlockFilesConfig) -> Result<Vec<ChainBlock>, Error> {
    read(&directory(&[("blk00000.dat", bytes)]), config).await
}

fn hashes(blocks: &[ChainBlock]) -> Vec<BlockHash> {
    blocks.iter().map(|block| block.hash).collect()
}

fn hashes_of(blocks: &[Vec<u8>]) -> Vec<BlockHash> {
    blocks.iter().map(|block| hash(block)).collect()
}

/// Each block follows the one before and has the median time of eleven.
fn check_order(blocks: &[ChainBlock], raw: &[Vec<u8>]) {
    for (height, (block, bytes)) in blocks.iter().zip(raw).enumerate() {
        assert_eq!((block.height as usize, block.hash), (height, hash(bytes)));
        assert_eq!(block.previous, header(bytes).previous);
        let mut times: Vec<u32> = raw[height.saturating_sub(10)..=height]
            .iter()
            .map(|b| header(b).time)
            .collect();
        times.sort_unstable();
        assert_eq!(block.median_time_past, times[times.len() / 2]);
        assert!(!block.coinbase_may_overwrite);
    }
    assert_eq!(blocks.len(), raw.len());
}

#[tokio::test]
async fn the_first_blocks_of_main_net_in_order() {
    let raw = common::first_blocks();
    let blocks = read_paths(vec![common::data("mainnet-0-599")], config(Network::Main))
        .await
        .unwrap();
    check_order(&blocks, &raw);
    // As Bitcoin Core's getblockheader reports.
    assert_eq!(blocks[0].median_time_past, 1_231_006_505);
    assert_eq!(blocks[1].median_time_past, 1_231_469_665);
}

#[tokio::test]
async fn order_of_blocks_and_files_does_not_matter() {
    let raw = common::first_blocks();
    // Seven is coprime to 600, so this visits every block.
    let shuffled: Vec<_> = (0..600).map(|n| raw[n * 7 % 600].clone()).collect();
    let directory = directory(&[
        ("blk00000.dat", &all_framed(Network::Main, &shuffled[400..])),
        ("blk00001.dat", &all_framed(Network::Main, &shuffled[..200])),
        // A block may lie there twice, and other files may too.
        (
            "blk00002.dat",
            &all_framed(Network::Main, &shuffled[150..420]),
        ),
        ("rev00000.dat", b"not read"),
        ("index.dat", b"not read"),
    ]);
    check_order(
        &read(&directory, config(Network::Main)).await.unwrap(),
        &raw,
    );
    let paths = ["blk00002.dat", "blk00001.dat", "blk00000.dat"];
    let paths = paths.map(|name| directory.path().join(name)).to_vec();
    check_order(
        &read_paths(paths, config(Network::Main)).await.unwrap(),
        &raw,
    );
}

#[tokio::test]
async fn obfuscated_files_read_the_same() {
    let raw = common::first_blocks();
    let [first, second] = ["blk00000.dat", "blk00001.dat"].map(|name| {
        let mut bytes = common::read(&format!("mainnet-0-599/{name}"));
        // Bitcoin Core reserves space with zeros that are not obfuscated.
        unmask(&mut bytes, 0, *b"\xf9secret!");
        bytes.extend([0; 70_000]);
        bytes
    });
    let mut directory = directory(&[
        ("blk00000.dat", &first),
        ("blk00001.dat", &second),
        ("xor.dat", b"\xf9secret!"),
    ]);
    check_order(
        &read(&directory, config(Network::Main)).await.unwrap(),
        &raw,
    );

    // A plain file from before the key, and a key that obfuscates nothing.
    let plain = common::read("mainnet-0-599/blk00000.dat");
    fs::write(directory.path().join("blk00000.dat"), &plain).unwrap();
    check_order(
        &read(&directory, config(Network::Main)).await.unwrap(),
        &raw,
    );
    fs::copy(
        common::data("mainnet-0-599/blk00001.dat"),
        directory.path().join("blk00001.dat"),
    )
    .unwrap();
    fs::write(directory.path().join("xor.dat"), [0; 8]).unwrap();
    check_order(
        &read(&directory, config(Network::Main)).await.unwrap(),
        &raw,
    );

    for bytes in [0, 7, 9] {
        fs::write(directory.path().join("xor.dat"), vec![1; bytes]).unwrap();
        let error = read(&directory, config(Network::Main)).await.unwrap_err();
        assert!(
            matches!(&error, Error::XorKeyLength { bytes: b, .. } if *b == bytes as u64),
            "{error}"
        );
    }
    // Without the key.
    fs::remove_file(directory.path().join("xor.dat")).unwrap();
    fs::write(directory.path().join("blk00000.dat"), &first).unwrap();
    let error = read(&directory, config(Network::Main)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownFormat { .. }), "{error}");
    assert!(error.to_string().contains("xor.dat"));
    directory.disable_cleanup(false);
}

#[tokio::test]
async fn hexadecimal_and_raw_files() {
    let raw = common::first_blocks();
    let hex = |blocks: &[Vec<u8>], end: &str| -> String {
        blocks
            .iter()
            .map(|block| groundtackle_chain::hash::to_hex(block) + end)
            .collect()
    };
    let text = hex(&raw[100..300], "\r\n") + "\n\n" + hex(&raw[..100], "\n").trim_end();
    let directory = directory(&[
        ("a.hex", text.to_uppercase().as_bytes()),
        ("b.raw", &raw[300]),
    ]);
    let paths = ["b.raw", "a.hex"]
        .map(|name| directory.path().join(name))
        .to_vec();
    check_order(
        &read_paths(paths.clone(), config(Network::Main))
            .await
            .unwrap(),
        &raw[..301],
    );

    let line = groundtackle_chain::hash::to_hex(&raw[0]);
    for bad in [
        format!("{line}0"),
        format!("{line}xx"),
        line[..158].to_owned(),
        format!("{} {}", &line[..200], &line[200..]),
    ] {
        let text = format!("{line}\n{bad}\n{line}");
        fs::write(&paths[1], &text).unwrap();
        let error = read_paths(paths.clone(), config(Network::Main))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::NotHex { offset, .. } if offset == line.len() as u64 + 1),
            "{error}"
        );
    }
    // The text ends in the middle of the block.
    fs::write(&paths[1], &line[..400]).unwrap();
    let error = read_paths(vec![paths[1].clone()], config(Network::Main))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Body {
                height: 0,
                source: DecodeError::Truncated { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn large_blocks_alone() {
    for (network, bytes) in common::full_blocks() {
        let directory = directory(&[("block.raw", &bytes)]);
        let paths = vec![directory.path().join("block.raw")];
        let mut config = config(network);
        let previous_times = vec![1; 10];
        config.after = Some(StartAfter {
            height: 300_000,
            hash: header(&bytes).previous,
            previous_times,
        });
        let blocks = read_paths(paths.clone(), config.clone()).await.unwrap();
        assert_eq!(hashes(&blocks), [hash(&bytes)]);
        assert_eq!((blocks[0].height, blocks[0].median_time_past), (300_001, 1));

        let line = groundtackle_chain::hash::to_hex(&bytes);
        fs::write(&paths[0], line).unwrap();
        assert_eq!(
            read_paths(paths.clone(), config.clone()).await.unwrap(),
            blocks
        );

        config.network = Network::Signet;
        config.after = None;
        let error = read_paths(paths, config).await.unwrap_err();
        assert!(
            matches!(error, Error::StartNotFound { blocks: 1, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn most_work_wins_and_stale_blocks_are_left_out() {
    let mut chain = regtest_chain(20);
    let mut stale = chain[..11].to_vec();
    extend(&mut stale, 9, 1);
    // The stale branch comes first, and is one shorter.
    let blocks: Vec<_> = stale[11..].iter().chain(&chain).cloned().collect();
    let file = all_framed(Network::Regtest, &blocks);
    check_order(&read_file(&file, regtest()).await.unwrap(), &chain);

    // Of equal branches the one that was complete first stays.
    extend(&mut stale, 1, 2);
    let both = [file, all_framed(Network::Regtest, &stale[20..])].concat();
    check_order(&read_file(&both, regtest()).await.unwrap(), &chain);
    // But a store that follows the other may stay there.
    let blocks = read_file(&both, after(15, hash(&stale[15]))).await.unwrap();
    assert_eq!(hashes(&blocks), hashes_of(&stale[16..]));

    // Once it is longer, a start on the other branch is stale.
    extend(&mut stale, 1, 3);
    let both = [both, all_framed(Network::Regtest, &stale[21..])].concat();
    let error = read_file(&both, after(15, hash(&chain[15])))
        .await
        .unwrap_err();
    let Error::StaleStart {
        height: 15,
        tip,
        fork_height: 10,
        fork_hash,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((tip, fork_hash), (hash(&stale[21]), hash(&chain[10])));
    let blocks = read_file(&both, after(10, fork_hash)).await.unwrap();
    assert_eq!(hashes(&blocks), hashes_of(&stale[11..]));

    // And back.
    extend(&mut chain, 2, 4);
    let both = [both, all_framed(Network::Regtest, &chain[21..])].concat();
    check_order(&read_file(&both, regtest()).await.unwrap(), &chain);
}

#[tokio::test]
async fn starts_and_ends_where_asked() {
    let chain = regtest_chain(30);
    let file = all_framed(Network::Regtest, &chain);
    let whole = read_file(&file, regtest()).await.unwrap();
    for start in [0, 1, 5, 9, 10, 11, 29, 30] {
        let mut config = after(start, hash(&chain[start as usize]));
        let blocks = read_file(&file, config.clone()).await.unwrap();
        assert_eq!(blocks, whole[start as usize + 1..]);
        for to in [0, start, (start + 1).min(30), 30] {
            config.to = Some(to);
            let blocks = read_file(&file, config.clone()).await.unwrap();
            assert_eq!(
                blocks,
                whole[start as usize + 1..(to.max(start) as usize + 1).min(31)]
            );
        }
    }
    let mut config = regtest();
    for to in [0, 1, 30] {
        config.to = Some(to);
        assert_eq!(
            read_file(&file, config.clone()).await.unwrap(),
            whole[..=to as usize]
        );
    }
    config.to = Some(31);
    let error = read_file(&file, config).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::EndsEarly {
                height: 30,
                to: 31,
                ..
            }
        ),
        "{error}"
    );
    let error = read_file(&file, after(7, hash(&chain[8])))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::StartHeight {
                given: 7,
                actual: 8,
                ..
            }
        ),
        "{error}"
    );
    let error = read_file(&file, after(7, BlockHash::ZERO))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::StartNotFound {
                blocks: 31,
                height: 7,
                ..
            }
        ),
        "{error}"
    );
    let error = read_file(&all_framed(Network::Regtest, &chain[1..]), regtest())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::StartNotFound {
                blocks: 30,
                height: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn median_times_need_ten_earlier_times() {
    let chain = regtest_chain(30);
    let whole = read_file(&all_framed(Network::Regtest, &chain), regtest())
        .await
        .unwrap();
    let times: Vec<u32> = chain.iter().map(|block| header(block).time).collect();
    // The files lack the block to start after, or have too few before it.
    for (first, start, needed) in [(16, 15, 10), (10, 15, 10), (4, 3, 4), (2, 3, 4)] {
        let file = all_framed(Network::Regtest, &chain[first..]);
        let mut config = after(start, hash(&chain[start as usize]));
        let error = read_file(&file, config.clone()).await.unwrap_err();
        assert!(
            matches!(error, Error::UnknownTimes { needed: n, .. } if n == needed),
            "{error}"
        );
        let given = |count: usize| times[..=start as usize][start as usize + 1 - count..].to_vec();
        for (count, enough) in [
            (needed - 1, false),
            (needed, true),
            (start as usize + 1, true),
        ] {
            config.after.as_mut().unwrap().previous_times = given(count);
            let read = read_file(&file, config.clone()).await;
            assert_eq!(read.is_ok(), enough);
            assert!(read.is_err() || read.unwrap() == whole[start as usize + 1..]);
        }
    }
    // Ten in the files are enough.
    let file = all_framed(Network::Regtest, &chain[6..]);
    let blocks = read_file(&file, after(15, hash(&chain[15]))).await.unwrap();
    assert_eq!(blocks, whole[16..]);
}

#[tokio::test]
async fn a_missing_block_is_a_gap() {
    let mut chain = regtest_chain(20);
    let missing = chain.remove(12);
    let file = all_framed(Network::Regtest, &chain);
    let error = read_file(&file, regtest()).await.unwrap_err();
    let Error::Gap {
        height: 11,
        missing: named,
        offset,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(named, hash(&missing));
    assert_eq!(
        offset,
        all_framed(Network::Regtest, &chain[..12]).len() as u64 + 8
    );
    // Below the gap all is well, and above it too.
    let mut config = regtest();
    config.to = Some(11);
    assert_eq!(read_file(&file, config.clone()).await.unwrap().len(), 12);
    config.to = Some(12);
    let error = read_file(&file, config).await.unwrap_err();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    let mut config = after(12, hash(&missing));
    config.after.as_mut().unwrap().previous_times = vec![1; 10];
    assert_eq!(read_file(&file, config).await.unwrap().len(), 8);
    // A single block above the gap is enough to see it, if it is the last.
    let file = all_framed(Network::Regtest, chain[..12].iter().chain(&chain[19..]));
    let error = read_file(&file, regtest()).await.unwrap_err();
    assert!(matches!(error, Error::Gap { height: 11, .. }), "{error}");
}

#[tokio::test]
async fn wrong_networks_are_named() {
    let chain = regtest_chain(3);
    let file = all_framed(Network::Regtest, &chain);
    for network in [
        Network::Main,
        Network::Testnet3,
        Network::Testnet4,
        Network::Signet,
    ] {
        let error = read_file(&file, config(network)).await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::WrongNetwork { offset: 0, expected, found: Network::Regtest, .. }
                    if *expected == network
            ),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("holds blocks of regtest at offset 0")
        );
    }
    let mixed = [&file[..], &framed(Network::Signet, &chain[0])].concat();
    let error = read_file(&mixed, regtest()).await.unwrap_err();
    assert!(
        matches!(error, Error::WrongNetwork { offset, found: Network::Signet, .. }
            if offset == file.len() as u64),
        "{error}"
    );
}

#[tokio::test]
async fn tails() {
    let chain = regtest_chain(5);
    let file = all_framed(Network::Regtest, &chain);
    let before = all_framed(Network::Regtest, &chain[..5]).len();
    // Reserved space, and a gap of it.
    for zeros in [1, 7, 8, 100, 70_000] {
        let padded = [&file[..], &vec![0; zeros]].concat();
        check_order(&read_file(&padded, regtest()).await.unwrap(), &chain);
        let gap = [&file[..before], &vec![0; zeros], &file[before..]].concat();
        if zeros >= 8 {
            check_order(&read_file(&gap, regtest()).await.unwrap(), &chain);
        }
    }
    // A record that is cut short.
    for end in [
        before + 1,
        before + 4,
        before + 8,
        before + 50,
        before + 88,
        file.len() - 1,
    ] {
        let error = read_file(&file[..end], regtest()).await.unwrap_err();
        match error {
            Error::NotARecord { offset, .. } => {
                assert!(end < before + 4 && offset == before as u64)
            }
            Error::PartialRecord {
                offset, available, ..
            } => {
                assert_eq!(offset, before as u64);
                assert_eq!(available, (end as u64).saturating_sub(before as u64 + 8));
            }
            error => panic!("{error}"),
        }
        check_order(
            &read_file(&file[..end], tolerant()).await.unwrap(),
            &chain[..5],
        );
    }
    // A record whose body, or header too, is not filled yet.
    for start in [before + 8, before + 88, before + 140] {
        let mut unfilled = file.clone();
        unfilled[start..].fill(0);
        unfilled.extend([0; 100]);
        let error = read_file(&unfilled, regtest()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::PartialRecord { .. } | Error::Body { height: 5, .. }
            ),
            "{error}"
        );
        check_order(
            &read_file(&unfilled, tolerant()).await.unwrap(),
            &chain[..5],
        );
    }
    // Damage elsewhere is damage, tolerated tail or not.
    let mut blank = file.clone();
    blank[before - 146..before - 66].fill(0);
    let error = read_file(&blank, tolerant()).await.unwrap_err();
    assert!(matches!(error, Error::PartialRecord { .. }), "{error}");
    let mut damaged = file.clone();
    damaged[before - 1] ^= 1;
    let error = read_file(&damaged, tolerant()).await.unwrap_err();
    assert!(matches!(error, Error::Body { height: 4, .. }), "{error}");
    let error = read_file(&[&file[..], b"garbage!!"].concat(), tolerant())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotARecord { .. }), "{error}");
}

#[tokio::test]
async fn a_claim_of_four_gigabytes_is_an_error() {
    let chain = regtest_chain(1);
    let mut file = all_framed(Network::Regtest, &chain);
    let offset = file.len() as u64;
    file.extend(framed(Network::Regtest, &chain[1]));
    file[offset as usize + 4..][..4].fill(0xff);
    let error = read_file(&file, regtest()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::PartialRecord { offset: o, claimed: 0xffff_ffff, available, .. }
                if *o == offset && *available == chain[1].len() as u64
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("blk00000.dat claims a record of 4294967295 bytes"),
        "{text}"
    );

    let mut small = regtest();
    small.max_block_size = ByteSize::new(200);
    let file = all_framed(Network::Regtest, &chain);
    let error = read_file(&file, small).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::BlockTooLarge {
                offset: 8,
                bytes: 285,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn damaged_blocks_are_named() {
    let chain = regtest_chain(5);
    let bad = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut chain = chain.clone();
        change(&mut chain[3]);
        all_framed(Network::Regtest, &chain)
    };
    let offset_of_3 = all_framed(Network::Regtest, &chain[..3]).len() as u64 + 8;

    // The coinbase's amount.
    let file = bad(&|block| block[81 + 5 + 36 + 1 + 4 + 4 + 1] ^= 1);
    let directory = directory(&[("blk00000.dat", &file)]);
    let mut source = BlockFiles::open(vec![directory.path().to_owned()], regtest())
        .await
        .unwrap();
    for height in 0..3 {
        assert_eq!(source.next_block().await.unwrap().unwrap().height, height);
    }
    for _ in 0..2 {
        let error = source.next_block().await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Body { offset, height: 3, hash: h, source: DecodeError::MerkleRootMismatch, .. }
                    if *offset == offset_of_3 && *h == hash(&chain[3])
            ),
            "{error}"
        );
        assert_eq!(error.retryability(), Retryability::Permanent);
    }
    // Once the file is mended, the source goes on.
    fs::write(
        directory.path().join("blk00000.dat"),
        all_framed(Network::Regtest, &chain),
    )
    .unwrap();
    for height in 3..6 {
        assert_eq!(source.next_block().await.unwrap().unwrap().height, height);
    }
    assert!(source.next_block().await.unwrap().is_none());

    let file = bad(&|block| common::mine(Network::Regtest, block, false));
    let error = read_file(&file, regtest()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::ProofOfWork { offset, source: ProofOfWorkError::HashAboveTarget { .. }, .. }
                if offset == offset_of_3
        ),
        "{error}"
    );
    let file = bad(&|block| block[72..76].copy_from_slice(&0x2100_8000_u32.to_le_bytes()));
    let error = read_file(&file, regtest()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::ProofOfWork {
                source: ProofOfWorkError::TargetAboveLimit { .. },
                ..
            }
        ),
        "{error}"
    );
    // A frame that is longer or shorter than its block.
    for size in [chain[3].len() - 1, chain[3].len() + 1] {
        let mut file = all_framed(Network::Regtest, &chain[..4]);
        file[offset_of_3 as usize - 4..][..4].copy_from_slice(&(size as u32).to_le_bytes());
        file.resize(offset_of_3 as usize + size, 0);
        let error = read_file(&file, regtest()).await.unwrap_err();
        assert!(matches!(error, Error::Body { height: 3, .. }), "{error}");
    }
    let mut file = framed(Network::Regtest, &chain[0]);
    file.extend(framed(Network::Regtest, &[1; 79]));
    file.extend([0; 9]);
    let error = read_file(&file, regtest()).await.unwrap_err();
    assert!(matches!(error, Error::NotARecord { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_is_noticed() {
    let chain = regtest_chain(5);
    let directory = directory(&[("blk00000.dat", &all_framed(Network::Regtest, &chain))]);
    let file = directory.path().join("blk00000.dat");
    let mut source = BlockFiles::open(vec![directory.path().to_owned()], regtest())
        .await
        .unwrap();
    // Blocks of the same size stand in their places.
    let mut other = chain[..1].to_vec();
    extend(&mut other, 5, 1);
    fs::write(&file, all_framed(Network::Regtest, &other)).unwrap();
    source.next_block().await.unwrap();
    let error = source.next_block().await.unwrap_err();
    assert!(matches!(error, Error::Changed { height: 1, .. }), "{error}");
    fs::remove_file(&file).unwrap();
    let error = source.next_block().await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[tokio::test]
async fn paths_without_blocks() {
    let error = read(&directory(&[]), regtest()).await.unwrap_err();
    assert!(matches!(error, Error::NoBlockFiles { .. }), "{error}");
    let error = read_paths(vec![], regtest()).await.unwrap_err();
    assert!(matches!(error, Error::NoBlockFiles { .. }), "{error}");
    let error = read_paths(vec![Path::new("no-such-file").into()], regtest())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(error.retryability(), Retryability::Permanent);
    let error = read_file(b"", regtest()).await.unwrap_err();
    assert!(matches!(error, Error::EmptyFile { .. }), "{error}");
    for bytes in [&b"hello, this is no block"[..], &[0xab; 500]] {
        let error = read_file(bytes, regtest()).await.unwrap_err();
        assert!(matches!(error, Error::UnknownFormat { .. }), "{error}");
    }
    for bytes in [&[0; 500][..], b"\n\n"] {
        let error = read_file(bytes, regtest()).await.unwrap_err();
        assert!(
            matches!(error, Error::StartNotFound { blocks: 0, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_dropped_call_loses_no_block() {
    let chain = regtest_chain(50);
    let directory = directory(&[("blk00000.dat", &all_framed(Network::Regtest, &chain))]);
    let mut source: Box<dyn BlockSource> = Box::new(
        BlockFiles::open(vec![directory.path().to_owned()], regtest())
            .await
            .unwrap(),
    );
    let mut blocks = Vec::new();
    loop {
        // Polls once and drops the future.
        let mut next = source.next_block();
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context)))
                .await;
        drop(next);
        match polled {
            std::task::Poll::Ready(Ok(Some(block))) => blocks.push(block),
            std::task::Poll::Ready(Ok(None)) => break,
            std::task::Poll::Ready(Err(error)) => panic!("{error}"),
            std::task::Poll::Pending => tokio::task::yield_now().await,
        }
    }
    check_order(&blocks, &chain);
}

#[test]
fn other_sources_say_how_long_their_errors_live() {
    let error = Error::from_source("the node's REST", Retryability::Transient, "503");
    assert_eq!(error.retryability(), Retryability::Transient);
    assert_eq!(
        error.to_string(),
        "the node's REST could not give its next block"
    );
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "503"
    );
}

#[test]
fn configs_read_as_they_print() {
    let config: BlockFilesConfig = serde_json::from_str(
        r#"{"network": "signet", "to": 5, "max_block_size": "32MiB",
            "after": {"height": 1, "hash": "00000000000000000000000000000000000000000000000000000000000000ff"}}"#,
    )
    .unwrap();
    let again = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(config, again);
    assert_eq!(
        serde_json::from_str::<BlockFilesConfig>("{}").unwrap(),
        Default::default()
    );
    assert!(serde_json::from_str::<BlockFilesConfig>(r#"{"t0": 5}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_files_do_not_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        tolerate: bool,
    ) {
        let blocks = [common::regtest_genesis()];
        let mut blocks = blocks.to_vec();
        blocks.push(regtest_block(hash(&blocks[0]), 1_400_000_000, 1));
        let mut file = all_framed(Network::Regtest, &blocks);
        for (index, byte) in edits {
            let at = index.index(file.len());
            file[at] = byte;
        }
        file.truncate(file.len() - cut.index(file.len()) / 3);
        file.extend(tail);
        let mut config = regtest();
        config.tolerate_partial_tail = tolerate;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let blocks = runtime.block_on(read_file(&file, config)).unwrap_or_default();
        prop_assert!(blocks.len() <= 2);
    }
}
