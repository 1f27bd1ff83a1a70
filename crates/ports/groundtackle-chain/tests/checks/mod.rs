//! What must hold of any bytes. The fuzz targets and the corpus test call the same checks.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub)]

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;

use bitcoin::blockdata::constants::genesis_block;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use groundtackle_chain::codec::{
    LongScripts, compress_amount, decompress_amount, read_coin, read_compact_script, read_script,
    read_varint, write_coin, write_script, write_varint,
};
use groundtackle_chain::decode::{DecodeOptions, Reader, merkle_root};
use groundtackle_chain::model::{MAX_MONEY_SAT, MAX_SCRIPT_BYTES};
use groundtackle_chain::undo::undo_records;
use groundtackle_chain::{
    BlockFiles, BlockFilesConfig, BlockHash, BlockHeader, BlockSource, BlockUndo, DecodeError,
    Network, StartAfter, Transaction, Txid, UndoRecord, decode_block, decode_transaction, unmask,
};
use tokio::runtime::Runtime;

/// A transaction, compared with what the `bitcoin` crate reads.
///
/// Where only that crate accepts, these rules of consensus must be the reason, which it leaves to
/// its callers: a transaction has inputs, pays at most 21 million coins, and names the null
/// outpoint only in a coinbase. Where only we accept, we are wrong.
pub fn transaction(bytes: &[u8]) {
    let theirs: Result<bitcoin::Transaction, _> = deserialize(bytes);
    match (decode_transaction(bytes), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(serialize(&theirs), bytes);
            same_transaction(&ours, &theirs);
        }
        (Err(error), Ok(theirs)) => assert!(
            breaks_rule(&error, &theirs),
            "refused for no reason: {error}"
        ),
        (Ok(ours), Err(error)) => panic!("{} should be refused: {error}", ours.txid),
        (Err(_), Err(_)) => {}
    }
}

fn same_transaction(ours: &Transaction, theirs: &bitcoin::Transaction) {
    assert_eq!(ours.txid, theirs.compute_txid().into());
    assert_eq!(ours.coinbase, theirs.is_coinbase());
    assert_eq!(ours.size_bytes, theirs.total_size() as u64);
    assert_eq!(ours.lock_time, theirs.lock_time.to_consensus_u32());
    if ours.coinbase {
        assert!(ours.inputs.is_empty());
    } else {
        let inputs = theirs
            .input
            .iter()
            .map(|input| input.previous_output.into());
        assert!(ours.inputs.iter().copied().eq(inputs));
    }
    assert_eq!(ours.outputs.len(), theirs.output.len());
    for (ours, theirs) in ours.outputs.iter().zip(&theirs.output) {
        assert_eq!(ours.value_sat, theirs.value.to_sat());
        assert_eq!(ours.script.as_bytes(), theirs.script_pubkey.as_bytes());
    }
}

fn breaks_rule(error: &DecodeError, theirs: &bitcoin::Transaction) -> bool {
    let is = |txid: &Txid| *txid == theirs.compute_txid().into();
    match error {
        DecodeError::NoInputs { .. } => theirs.input.is_empty(),
        DecodeError::AmountTooLarge {
            txid,
            vout,
            value_sat,
        } => {
            let vout = *vout as usize;
            let sum = |end| {
                let amounts = theirs.output[..end].iter().map(|o| o.value.to_sat());
                amounts.map(u128::from).sum::<u128>()
            };
            is(txid)
                && theirs.output[vout].value.to_sat() == *value_sat
                && sum(vout) <= MAX_MONEY_SAT.into()
                && sum(vout + 1) > MAX_MONEY_SAT.into()
        }
        DecodeError::NullInput { txid, vin } => {
            is(txid) && !theirs.is_coinbase() && theirs.input[*vin].previous_output.is_null()
        }
        _ => false,
    }
}

/// A block, as it is and with the merkle root that its transactions have.
pub fn block(bytes: &[u8]) {
    let theirs: Result<bitcoin::Block, _> = deserialize(bytes);
    one_block(bytes, theirs.as_ref().ok());
    // A change hardly ever keeps the root, and what is behind that check is to be reached too.
    if let Ok(mut theirs) = theirs
        && let Some(root) = theirs.compute_merkle_root()
        && root != theirs.header.merkle_root
    {
        theirs.header.merkle_root = root;
        one_block(&serialize(&theirs), Some(&theirs));
    }
}

fn one_block(bytes: &[u8], theirs: Option<&bitcoin::Block>) {
    match (decode_block(bytes, &DecodeOptions::default()), theirs) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!(ours.hash, theirs.block_hash().into());
            assert_eq!(ours.header, theirs.header.into());
            assert_eq!(ours.header.to_bytes(), bytes[..80]);
            assert!(theirs.check_merkle_root());
            assert_eq!(ours.transactions.len(), theirs.txdata.len());
            for (index, (ours, theirs)) in ours.transactions.iter().zip(&theirs.txdata).enumerate()
            {
                assert_eq!(ours.coinbase, index == 0);
                same_transaction(ours, theirs);
            }

            let mut txids: Vec<Txid> = ours.transactions.iter().map(|tx| tx.txid).collect();
            let root = merkle_root(txids.iter().copied());
            assert_eq!(root, Ok(ours.header.merkle_root));
            // CVE-2012-2459: so many at the end can be repeated under the same root.
            let repeatable = 1 << txids.len().trailing_zeros();
            txids.extend_from_within(txids.len() - repeatable..);
            let root = merkle_root(txids);
            assert_eq!(root, Err(DecodeError::RepeatedTransactions));

            let mut options = DecodeOptions::default();
            options.max_block_bytes = bytes.len() as u64 - 1;
            let refused = decode_block(bytes, &options);
            assert!(matches!(refused, Err(DecodeError::BlockTooLarge { .. })));
        }
        (Err(error), Some(theirs)) => assert!(
            block_breaks_rule(&error, theirs),
            "refused for no reason: {error}"
        ),
        (Ok(ours), None) => panic!("block {} should be refused", ours.hash),
        (Err(_), None) => {}
    }
}

fn block_breaks_rule(error: &DecodeError, theirs: &bitcoin::Block) -> bool {
    let transactions = &theirs.txdata;
    match error {
        DecodeError::NoTransactions => transactions.is_empty(),
        DecodeError::MisplacedCoinbase { txid, index } => {
            let theirs = &transactions[*index];
            *txid == theirs.compute_txid().into() && theirs.is_coinbase() != (*index == 0)
        }
        DecodeError::MerkleRootMismatch => !theirs.check_merkle_root(),
        DecodeError::RepeatedTransactions => {
            let mut txids: Vec<_> = transactions.iter().map(|tx| tx.compute_txid()).collect();
            txids.sort_unstable();
            txids.windows(2).any(|pair| pair[0] == pair[1])
        }
        // Transactions without inputs are short, so more of them are claimed than we think can be.
        DecodeError::TooManyItems { .. } => transactions.iter().any(|tx| tx.input.is_empty()),
        error => transactions.iter().any(|tx| breaks_rule(error, tx)),
    }
}

/// An undo record's body, and an undo file of any bytes.
pub fn undo(bytes: &[u8]) {
    let undo = BlockUndo::decode(bytes);
    if let Ok(undo) = &undo {
        let again = undo.encode().unwrap();
        assert!(again.len() <= bytes.len());
        assert_eq!(BlockUndo::decode(&again).as_ref(), Ok(undo));
    }

    let (previous, other) = (BlockHash::from_bytes([1; 32]), BlockHash::ZERO);
    let record = UndoRecord::new(&previous, bytes);
    assert_eq!(record.decode(&previous), undo);
    let mismatch = DecodeError::ChecksumMismatch { previous: other };
    assert_eq!(record.decode(&other), Err(mismatch));
    let mut file = Network::Main.magic().to_vec();
    file.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    file.extend(bytes);
    file.extend(record.checksum);
    file.extend([0; 9]);
    assert!(undo_records(&file, Network::Main).eq([Ok(record)]));

    let records: Vec<_> = undo_records(bytes, Network::Main).collect();
    let errors = records.iter().filter(|record| record.is_err()).count();
    assert!(errors == 0 || errors == 1 && records.last().unwrap().is_err());
    let whole = records.iter().flatten();
    let size: usize = whole.map(|record| 8 + record.undo.len() + 32).sum();
    assert!(size <= bytes.len());
}

/// Numbers, amounts and scripts in compact form; what they hold comes back, both ways.
pub fn script(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Ok(number) = read_varint(&mut reader) {
        let mut again = Vec::new();
        write_varint(&mut again, number);
        assert_eq!(again, bytes[..reader.position()]);
        if let Some(value_sat) = decompress_amount(number) {
            assert_eq!(compress_amount(value_sat), Some(number));
        }
        let amount = compress_amount(number);
        assert_eq!(amount.is_some(), number <= MAX_MONEY_SAT);
        assert!(amount.is_none_or(|amount| decompress_amount(amount) == Some(number)));
    }

    let mut reader = Reader::new(bytes);
    if let Ok(script) = read_script(&mut reader, LongScripts::Keep) {
        // Another form is longer than ours.
        let again = compact(script.as_bytes());
        assert!(again.len() < reader.position() || again == bytes[..reader.position()]);
        let mut discarding = Reader::new(bytes);
        let shown = read_script(&mut discarding, LongScripts::Discard).unwrap();
        assert_eq!(discarding.position(), reader.position());
        if script.as_bytes().len() > MAX_SCRIPT_BYTES {
            assert_eq!(shown.as_bytes(), [0x6a]);
        } else {
            assert_eq!(shown, script);
        }
    }

    let mut reader = Reader::new(bytes);
    let mut skipping = Reader::new(bytes);
    let skipped = read_compact_script(&mut skipping);
    match read_script(&mut reader, LongScripts::Keep) {
        Ok(_) => assert_eq!(skipped, Ok(&bytes[..reader.position()])),
        Err(DecodeError::KeyNotOnCurve { offset }) => assert_eq!(skipped, Ok(&bytes[..offset])),
        Err(error) => assert_eq!(skipped, Err(error)),
    }

    let short = compact(bytes);
    // A key is shortened if libsecp256k1 takes it for one.
    if let [0x41, key @ .., 0xac] = bytes
        && key.len() == 65
        && key[0] == 4
    {
        let valid = PublicKey::from_slice(key).is_ok();
        assert_eq!(short.len(), if valid { 33 } else { 68 });
    }
}

fn compact(script: &[u8]) -> Vec<u8> {
    let mut short = Vec::new();
    write_script(&mut short, script);
    let mut reader = Reader::new(&short);
    let again = read_script(&mut reader, LongScripts::Keep).unwrap();
    assert!(reader.rest().is_empty());
    assert_eq!(again.as_bytes(), script);
    short
}

/// A coin in compact form.
pub fn coin(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let Ok(coin) = read_coin(&mut reader, LongScripts::Keep) else {
        assert!(read_coin(&mut Reader::new(bytes), LongScripts::Discard).is_err());
        return;
    };
    let mut again = Vec::new();
    write_coin(&mut again, &coin).unwrap();
    assert!(again.len() < reader.position() || again == bytes[..reader.position()]);
    let mut second = Reader::new(&again);
    assert_eq!(
        read_coin(&mut second, LongScripts::Keep).as_ref(),
        Ok(&coin)
    );
    assert!(second.rest().is_empty());

    let undo = BlockUndo {
        transactions: vec![vec![coin]],
    };
    assert_eq!(BlockUndo::decode(&undo.encode().unwrap()), Ok(undo));
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
});

const TOLERATE: u8 = 1;
const OBFUSCATE: u8 = 1 << 1;
const UP_TO: u8 = 1 << 2;
const AFTER: u8 = 1 << 3;
const MEND: u8 = 1 << 4;
const SPLIT: u8 = 1 << 5;
const MAIN: u8 = 1 << 6;
const FORGET: u8 = 1 << 7;

/// Files of blocks: four bytes that say how to read them, and the files.
///
/// The bytes are flags, the last height, the number of the block to begin after (whose bytes are
/// left out if [`FORGET`]), and the obfuscation key or where to split the blocks into two files.
pub fn block_files(bytes: &[u8]) {
    let Some((&[flags, to, after, last], content)) = bytes.split_first_chunk() else {
        return;
    };
    let has = |flag: u8| flags & flag != 0;
    let network = if has(MAIN) {
        Network::Main
    } else {
        Network::Regtest
    };
    let mut content = content.to_vec();
    if has(MEND) {
        let genesis = genesis_block(bitcoin::Network::Regtest);
        content = [framed(&serialize(&genesis)), content].concat();
        mend(&mut content);
    }
    let mut config = BlockFilesConfig::new(network);
    config.tolerate_partial_tail = has(TOLERATE);
    config.to = has(UP_TO).then_some(to.into());
    if has(AFTER)
        && let Some(frame) = frames(&content).into_iter().nth(after.into())
        && let Some(header) = content[frame.clone()].first_chunk()
    {
        config.after = Some(StartAfter {
            height: after.into(),
            hash: BlockHeader::from_bytes(header).hash(),
            previous_times: (1..=u32::from(last) % 16).collect(),
        });
        if has(FORGET) {
            content.drain(..frame.end);
        }
    }

    let mut files = vec![content];
    if has(SPLIT) {
        let content = &mut files[0];
        let middle = content.len() * usize::from(last) / 256;
        let ends = frames(content).into_iter().map(|frame| frame.end);
        let second = content.split_off(
            ends.take_while(|end| *end <= middle)
                .last()
                .unwrap_or(middle),
        );
        files.push(second);
    }
    let plain = read_files(files.clone(), [0; 8], &config);
    if has(OBFUSCATE) {
        let key = [last, 1, 2, 3, after, 5, 6, 7];
        // Zeros that a node reserves are not obfuscated.
        let same = !has(TOLERATE) && files.iter().all(|file| only_frames(file, network));
        let obfuscated = read_files(files, key, &config);
        assert!(!same || obfuscated == plain);
    }
}

fn only_frames(file: &[u8], network: Network) -> bool {
    let frames = frames(file);
    let whole = frames.last().is_some_and(|last| last.end == file.len());
    let begins = |frame: &Range<usize>| file[frame.start - 8..].starts_with(&network.magic());
    whole && frames.iter().all(begins)
}

// The blocks' hashes, unless there is an error.
fn read_files(
    files: Vec<Vec<u8>>,
    key: [u8; 8],
    config: &BlockFilesConfig,
) -> Option<Vec<BlockHash>> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("xor.dat"), key).unwrap();
    for (number, mut file) in files.into_iter().enumerate() {
        unmask(&mut file, 0, key);
        let name = format!("blk{number:05}.dat");
        fs::write(folder.path().join(name), file).unwrap();
    }
    RUNTIME.block_on(read_all(vec![folder.path().to_owned()], config.clone()))
}

async fn read_all(paths: Vec<PathBuf>, config: BlockFilesConfig) -> Option<Vec<BlockHash>> {
    let tolerant = config.tolerate_partial_tail;
    let start = config.after.clone();
    let mut source = BlockFiles::open(paths, config).await.ok()?;
    let tip = source.tip();
    let mut last = start.map(|start| (start.height, start.hash));
    let mut hashes = Vec::new();
    for remaining in (0..=source.remaining_blocks()).rev() {
        let block = match source.next_block().await {
            Ok(Some(block)) => block,
            Ok(None) => {
                assert!(remaining == 0 || remaining == 1 && tolerant);
                assert!(remaining == 1 || last == Some(tip));
                break;
            }
            Err(error) => {
                let again = source.next_block().await.unwrap_err();
                assert_eq!(again.to_string(), error.to_string());
                return None;
            }
        };
        assert_eq!(source.remaining_blocks() + 1, remaining);
        if let Some((height, hash)) = last {
            assert_eq!((block.height, block.previous), (height + 1, hash));
        }
        assert!(!block.transactions.is_empty());
        last = Some((block.height, block.hash));
        hashes.push(block.hash);
    }
    assert_eq!(source.remaining_blocks(), 0);
    assert!(source.next_block().await.unwrap().is_none());
    Some(hashes)
}

fn framed(block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(block.len()).unwrap().to_le_bytes();
    [&Network::Regtest.magic(), &length, block].concat()
}

// Where the bodies lie, as far as the frames go.
fn frames(content: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut start = 8;
    while let Some(length) = content.get(start - 4..start).and_then(|l| l.first_chunk()) {
        let Some(end) = start.checked_add(u32::from_le_bytes(*length) as usize) else {
            break;
        };
        if end > content.len() {
            break;
        }
        frames.push(start..end);
        start = end + 8;
    }
    frames
}

// Gives each block a parent among the ones before it, the root of its transactions, and work.
fn mend(content: &mut [u8]) {
    let mut hashes = vec![Network::Regtest.genesis_hash()];
    for frame in frames(content) {
        let body = &mut content[frame];
        let Some(mut header) = body.first_chunk().map(BlockHeader::from_bytes) else {
            continue;
        };
        if header.hash() == hashes[0] {
            continue;
        }
        let back = 1 + usize::from(header.previous.as_bytes()[0] % 4);
        header.previous = hashes[hashes.len().saturating_sub(back)];
        header.bits = 0x207f_ffff;
        if let Ok(block) = deserialize::<bitcoin::Block>(body)
            && let Some(root) = block.compute_merkle_root()
        {
            header.merkle_root = root.to_byte_array();
        }
        let works = |header: &BlockHeader| {
            Network::Regtest
                .check_proof_of_work(&header.hash(), header.bits)
                .is_ok()
        };
        while !works(&header) {
            header.nonce = header.nonce.wrapping_add(1);
        }
        body[..80].copy_from_slice(&header.to_bytes());
        hashes.push(header.hash());
    }
}
