//! Real blocks and undo records decode, and only as they are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use groundtackle_chain::decode::{DecodeOptions, merkle_root, write_compact_size};
use groundtackle_chain::hash::{from_hex, sha256d, to_hex};
use groundtackle_chain::model::{COIN_SAT, MAX_MONEY_SAT};
use groundtackle_chain::undo::undo_records;
use groundtackle_chain::{
    BlockHash, BlockUndo, DecodeError, Network, OutPoint, StoredCoin, Txid, UndoRecord,
    decode_block, decode_transaction,
};

fn decode(block: &[u8]) -> Result<groundtackle_chain::Block, DecodeError> {
    decode_block(block, &DecodeOptions::default())
}

#[test]
fn networks_read_as_they_print() {
    for network in Network::ALL {
        assert_eq!(network.to_string().parse(), Ok(network));
        assert_eq!(
            serde_json::to_string(&network).unwrap(),
            format!("\"{network}\"")
        );
        assert_eq!(
            serde_json::from_str::<Network>(&format!("\"{network}\"")).unwrap(),
            network
        );
        assert_eq!(Network::from_magic(network.magic()), Some(network));
    }
    assert_eq!(
        "mainnet".parse::<Network>().unwrap_err().to_string(),
        "\"mainnet\" is not a network: write main, testnet3, testnet4, signet or regtest"
    );
    for (network, genesis) in [
        (
            Network::Main,
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        ),
        (
            Network::Testnet3,
            "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        ),
        (
            Network::Testnet4,
            "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        ),
        (
            Network::Signet,
            "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        ),
        (
            Network::Regtest,
            "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        ),
    ] {
        assert_eq!(network.genesis_hash().to_string(), genesis);
    }
}

#[test]
fn two_coinbases_of_main_net_may_overwrite() {
    for (height, hash) in [
        (
            91_842,
            "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec",
        ),
        (
            91_880,
            "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721",
        ),
    ] {
        let hash: BlockHash = hash.parse().unwrap();
        assert!(Network::Main.coinbase_may_overwrite(height, &hash));
        assert!(!Network::Main.coinbase_may_overwrite(height + 1, &hash));
        assert!(!Network::Main.coinbase_may_overwrite(height, &BlockHash::ZERO));
        assert!(!Network::Testnet3.coinbase_may_overwrite(height, &hash));
    }
}

#[test]
fn the_first_blocks_decode() {
    let blocks = common::first_blocks();
    assert_eq!(blocks.len(), 600);
    let mut previous = BlockHash::ZERO;
    for bytes in &blocks {
        let block = decode(bytes).unwrap();
        assert_eq!(block.header.previous, previous);
        assert_eq!(block.hash, block.header.hash());
        Network::Main
            .check_proof_of_work(&block.hash, block.header.bits)
            .unwrap();
        assert_eq!(block.header.to_bytes(), bytes[..80]);
        previous = block.hash;
    }
    assert_eq!(
        previous.to_string(),
        "0000000042844571bc6bce8e1c0fbec99466971eaff89fef8c0d123582181d4d"
    );
    let genesis = decode(&blocks[0]).unwrap();
    assert_eq!(genesis.hash, Network::Main.genesis_hash());
    assert_eq!(
        genesis.transactions[0].txid.to_string(),
        "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    );
    assert!(genesis.transactions[0].coinbase && genesis.transactions[0].inputs.is_empty());
    assert_eq!(genesis.transactions[0].outputs[0].value_sat, 50 * COIN_SAT);
    // The first payment: 10 coins of block 9 to Hal Finney.
    let payment = &decode(&blocks[170]).unwrap().transactions[1];
    assert_eq!(
        payment.inputs[0].to_string(),
        "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9:0"
    );
    assert_eq!(payment.outputs[0].value_sat, 10 * COIN_SAT);
}

#[test]
fn full_blocks_decode() {
    for (network, bytes) in common::full_blocks() {
        let block = decode(&bytes).unwrap();
        network
            .check_proof_of_work(&block.hash, block.header.bits)
            .unwrap();
        let sizes: u64 = block
            .transactions
            .iter()
            .map(|transaction| transaction.size_bytes)
            .sum();
        let mut start = block.header.to_bytes().to_vec();
        write_compact_size(&mut start, block.transactions.len() as u64);
        assert_eq!(start.len() as u64 + sizes, bytes.len() as u64);
        assert!(bytes.starts_with(&start));
    }
}

#[test]
fn no_prefix_of_a_block_decodes() {
    for (_, bytes) in common::full_blocks() {
        for end in (0..bytes.len()).step_by(bytes.len() / 20) {
            assert!(decode(&bytes[..end]).is_err());
        }
    }
    // In the block of the first payment, each byte matters.
    let block = &common::first_blocks()[170];
    for end in 0..block.len() {
        assert!(decode(&block[..end]).is_err());
        let mut changed = block.clone();
        changed[end] ^= 1;
        // The other fields of the header are for its proof of work.
        if (36..68).contains(&end) || end >= 80 {
            assert!(decode(&changed).is_err(), "byte {end}");
        }
    }
    let longer = [&block[..], &[0]].concat();
    assert_eq!(
        decode(&longer),
        Err(DecodeError::TrailingBytes {
            offset: block.len(),
            extra: 1
        })
    );
}

#[test]
fn a_limit_below_the_size_refuses_the_block() {
    let block = &common::first_blocks()[0];
    let mut options = DecodeOptions::default();
    options.max_block_bytes = 284;
    assert_eq!(
        decode_block(block, &options),
        Err(DecodeError::BlockTooLarge {
            bytes: 285,
            max_block_bytes: 284
        })
    );
    options.max_block_bytes = 285;
    decode_block(block, &options).unwrap();
}

#[test]
fn merkle_roots_with_repeated_transactions_are_refused() {
    let txids: Vec<Txid> = (1..=6).map(|n| Txid::from_bytes([n; 32])).collect();
    let root = merkle_root(txids.clone()).unwrap();
    // CVE-2012-2459: six hash to the same as eight with the last two again.
    let mut repeated = txids.clone();
    repeated.extend([txids[4], txids[5]]);
    assert_eq!(
        merkle_root(repeated),
        Err(DecodeError::RepeatedTransactions)
    );
    let pair = |a: [u8; 32], b: [u8; 32]| sha256d(&[a, b].concat());
    let [ab, cd, ef] = [[1, 2], [3, 4], [5, 6]].map(|[a, b]| pair([a; 32], [b; 32]));
    assert_eq!(root, pair(pair(ab, cd), pair(ef, ef)));
    assert_eq!(merkle_root([txids[0]]), Ok([1; 32]));
    assert_eq!(
        merkle_root([txids[0], txids[0]]),
        Err(DecodeError::RepeatedTransactions)
    );
    assert_eq!(merkle_root([]), Ok([0; 32]));
}

// A transaction around the bytes of its inputs and outputs.
fn transaction(body: &str) -> Result<groundtackle_chain::Transaction, DecodeError> {
    decode_transaction(&from_hex(&format!("01000000{body}00000000")).unwrap())
}

const INPUT: &str = "1111111111111111111111111111111111111111111111111111111111111111000000000\
                     0ffffffff";
const NULL: &str = "0000000000000000000000000000000000000000000000000000000000000000ffffffff0\
                    0ffffffff";

#[test]
fn witnesses_count_in_the_size_and_not_in_the_identifier() {
    let plain = transaction(&format!("01{INPUT}01000000000000000000")).unwrap();
    let with_witness =
        transaction(&format!("000101{INPUT}010000000000000000000203aabbcc00")).unwrap();
    assert_eq!(with_witness.txid, plain.txid);
    assert_eq!((plain.size_bytes, with_witness.size_bytes), (60, 68));
    assert_eq!(
        with_witness.inputs,
        [OutPoint::new(Txid::from_bytes([0x11; 32]), 0)]
    );
}

#[test]
fn malformed_transactions_are_refused() {
    let out = "01000000000000000000";
    for (body, expected) in [
        (format!("0000{out}"), "NoInputs { offset: 6 }"),
        (format!("000100{out}00"), "NoInputs { offset: 7 }"),
        (
            format!("000201{INPUT}{out}00"),
            "UnknownFlag { offset: 6, flag: 2 }",
        ),
        (
            format!("000301{INPUT}{out}0100"),
            "UnknownFlag { offset: 6, flag: 3 }",
        ),
        (
            format!("000101{INPUT}{out}00"),
            "SuperfluousWitness { offset: 59 }",
        ),
        (
            format!("fd0100{INPUT}{out}"),
            "NonMinimalNumber { offset: 7 }",
        ),
        (
            format!("fe01000000{INPUT}{out}"),
            "NonMinimalNumber { offset: 9 }",
        ),
        (
            format!("ff0100000000000000{INPUT}{out}"),
            "NonMinimalNumber { offset: 13 }",
        ),
        (
            format!("ffffffffffffffffff{INPUT}{out}"),
            "TooManyItems { offset: 13, claimed: 18446744073709551615, available: 55 }",
        ),
        (
            format!("01{INPUT}feffffffff"),
            "TooManyItems { offset: 51, claimed: 4294967295, available: 4 }",
        ),
        (
            format!("01{INPUT}010000000000000000feffffffff"),
            "Truncated { offset: 60, needed: 4294967295, available: 4 }",
        ),
    ] {
        assert_eq!(format!("{:?}", transaction(&body).unwrap_err()), expected);
    }
    assert!(matches!(
        transaction(&format!("02{INPUT}{NULL}{out}")),
        Err(DecodeError::NullInput { vin: 1, .. })
    ));
    assert!(transaction(&format!("01{NULL}{out}")).unwrap().coinbase);
}

#[test]
fn amounts_above_all_coins_name_transaction_and_output() {
    let outputs = |values: &[u64]| {
        let values: String = values
            .iter()
            .map(|value| to_hex(&value.to_le_bytes()) + "00")
            .collect();
        format!("01{INPUT}{:02x}{values}", values.len() / 18)
    };
    transaction(&outputs(&[MAX_MONEY_SAT])).unwrap();
    transaction(&outputs(&[MAX_MONEY_SAT - 1, 1])).unwrap();
    for (values, bad) in [
        (&[0, MAX_MONEY_SAT + 1][..], 1),
        (&[u64::MAX, 0], 0),
        (&[MAX_MONEY_SAT, 1], 1),
        (&[u64::MAX, u64::MAX, 0], 0),
    ] {
        let body = outputs(values);
        let whole = from_hex(&format!("01000000{body}00000000")).unwrap();
        let txid = Txid::from_bytes(sha256d(&whole));
        assert_eq!(
            transaction(&body),
            Err(DecodeError::AmountTooLarge {
                txid,
                vout: bad,
                value_sat: values[bad as usize]
            })
        );
    }
}

#[test]
fn coinbases_stand_first_and_alone() {
    let out = "0100000000000000000000000000";
    let coinbase = from_hex(&format!("0100000001{NULL}{out}")).unwrap();
    let payment = from_hex(&format!("0100000001{INPUT}{out}")).unwrap();
    let block = |transactions: &[&Vec<u8>]| {
        let root = merkle_root(transactions.iter().map(|t| Txid::from_bytes(sha256d(t))));
        let transactions: Vec<_> = transactions.iter().copied().cloned().collect();
        decode(&common::block_of(
            BlockHash::ZERO,
            1,
            root.unwrap_or_default(),
            &transactions,
        ))
    };
    block(&[&coinbase, &payment]).unwrap();
    assert!(matches!(
        block(&[&payment, &coinbase]),
        Err(DecodeError::MisplacedCoinbase { index: 0, .. })
    ));
    assert!(matches!(
        block(&[&coinbase, &payment, &coinbase]),
        Err(DecodeError::MisplacedCoinbase { index: 2, .. })
    ));
    assert_eq!(block(&[]), Err(DecodeError::NoTransactions));
    // An odd last one pairs with itself, which is no repetition.
    block(&[&coinbase, &payment, &payment]).unwrap();
    assert_eq!(
        block(&[&coinbase, &payment, &payment, &payment]),
        Err(DecodeError::RepeatedTransactions)
    );
}

#[test]
fn undo_records_decode_and_come_back() {
    let blocks = common::first_blocks();
    let file = common::read("mainnet-0-599/rev00000.dat");
    let records: Vec<UndoRecord<'_>> = undo_records(&file, Network::Main)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(records.len(), 40);
    for (block, record) in blocks.iter().skip(1).zip(&records) {
        let block = decode(block).unwrap();
        let undo = record.decode(&block.header.previous).unwrap();
        assert_eq!(undo.transactions.len(), block.transactions.len() - 1);
        let encoded = undo.encode().unwrap();
        assert_eq!(encoded, record.undo);
        assert_eq!(UndoRecord::new(&block.header.previous, &encoded), *record);
        assert_eq!(
            record.decode(&block.hash),
            Err(DecodeError::ChecksumMismatch {
                previous: block.hash
            })
        );
    }
}

#[test]
fn the_undo_of_the_first_payment() {
    // It spends the coinbase of block 9, whose key has an odd y.
    let key = "11db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c";
    let bytes = from_hex(&format!("0101130032{}{key}", "05")).unwrap();
    let undo = BlockUndo::decode(&bytes).unwrap();
    let coinbase = &decode(&common::first_blocks()[9]).unwrap().transactions[0];
    assert_eq!(
        undo.transactions,
        [[StoredCoin {
            height: 9,
            coinbase: true,
            output: coinbase.outputs[0].clone()
        }]]
    );
    assert_eq!(undo.encode().unwrap(), bytes);
    for end in 0..bytes.len() {
        assert!(BlockUndo::decode(&bytes[..end]).is_err());
    }
    assert!(BlockUndo::decode(&[&bytes[..], &[0]].concat()).is_err());
    // At height 0 there is no version byte.
    let genesis = from_hex("0101003206").unwrap();
    let mut undo = BlockUndo::decode(&genesis).unwrap();
    assert_eq!(undo.encode().unwrap(), genesis);
    undo.transactions[0][0].height = 1;
    assert_eq!(to_hex(&undo.encode().unwrap()), "010102003206");
}

#[test]
fn damaged_undo_files_end_with_an_error() {
    let file = common::read("mainnet-0-599/rev00000.dat");
    let count = |file: &[u8], network| {
        let records: Vec<_> = undo_records(file, network).collect();
        assert!(records.iter().rev().skip(1).all(Result::is_ok));
        (records.len(), records.last().is_none_or(Result::is_ok))
    };
    assert_eq!(count(&file, Network::Main), (40, true));
    assert_eq!(count(&file, Network::Regtest), (1, false));
    assert_eq!(count(&[], Network::Main), (0, true));
    assert_eq!(count(&file[..41 * 3 - 1], Network::Main), (3, false));
    assert_eq!(
        count(&[&file[..41 * 3], &[0; 100]].concat(), Network::Main),
        (3, true)
    );
}
