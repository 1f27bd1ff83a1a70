//! The compact forms, against Bitcoin Core's own values and real coins.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use groundtackle_chain::codec::{
    EncodeCoinError, LongScripts, StoredCoin, compress_amount, decompress_amount, read_coin,
    read_script, read_varint, write_coin, write_script, write_varint,
};
use groundtackle_chain::decode::Reader;
use groundtackle_chain::hash::{from_hex, to_hex};
use groundtackle_chain::model::{COIN_SAT, MAX_MONEY_SAT};
use groundtackle_chain::{DecodeError, TxOut};
use proptest::prelude::*;

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, value);
    out
}

fn short(script: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_script(&mut out, script);
    out
}

fn long(short: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(short);
    let script = read_script(&mut reader, LongScripts::Keep)?;
    reader.finish()?;
    Ok(script.into_bytes())
}

#[test]
fn varints_of_core() {
    for (value, hex) in [
        (0, "00"),
        (127, "7f"),
        (128, "8000"),
        (255, "807f"),
        (256, "8100"),
        (16_383, "fe7f"),
        (16_384, "ff00"),
        (16_511, "ff7f"),
        (16_512, "808000"),
        (65_535, "82fe7f"),
        (1 << 32, "8efefeff00"),
        (u64::MAX, "80fefefefefefefefe7f"),
    ] {
        assert_eq!(to_hex(&varint(value)), hex);
        assert_eq!(
            read_varint(&mut Reader::new(&from_hex(hex).unwrap())),
            Ok(value)
        );
    }
}

#[test]
fn varints_above_64_bits_are_refused() {
    // One more than the largest, and digits without end.
    for hex in ["80fefefefefefefeff00", "ffffffffffffffffffffff00"] {
        assert!(matches!(
            read_varint(&mut Reader::new(&from_hex(hex).unwrap())),
            Err(DecodeError::NumberOutOfRange { .. })
        ));
    }
    assert!(matches!(
        read_varint(&mut Reader::new(&[0x80])),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn amounts_of_core() {
    for (value, compressed) in [
        (0, 0),
        (1, 1),
        (1_000_000, 7),
        (COIN_SAT, 9),
        (50 * COIN_SAT, 0x32),
        (MAX_MONEY_SAT, 0x0140_6f40),
    ] {
        assert_eq!(compress_amount(value), Some(compressed));
        assert_eq!(decompress_amount(compressed), Some(value));
    }
    assert_eq!(compress_amount(MAX_MONEY_SAT + 1), None);
    assert_eq!(decompress_amount(u64::MAX), None);
}

// The generator of secp256k1.
const X: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const Y: &str = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
// The same point mirrored: the field's size less Y, which is odd.
const MINUS_Y: &str = "b7c52588d95c3b9aa25b0403f1eef75702e84bb7597aabe663b82f6f04ef2777";

#[test]
fn scripts_of_each_kind() {
    let h = "11".repeat(20);
    // 5 is the x of no point.
    let off = format!("{}05", "00".repeat(31));
    for (script, compressed) in [
        (format!("76a914{h}88ac"), format!("00{h}")),
        (format!("a914{h}87"), format!("01{h}")),
        (format!("2102{X}ac"), format!("02{X}")),
        (format!("2103{X}ac"), format!("03{X}")),
        (format!("2103{off}ac"), format!("03{off}")),
        (format!("4104{X}{Y}ac"), format!("04{X}")),
        (format!("4104{X}{MINUS_Y}ac"), format!("05{X}")),
        // Raw: empty, hybrid keys, keys off the curve, and what only looks like a kind.
        (String::new(), "06".into()),
        (format!("4106{X}{Y}ac"), format!("494106{X}{Y}ac")),
        (
            format!("4107{X}{MINUS_Y}ac"),
            format!("494107{X}{MINUS_Y}ac"),
        ),
        (format!("4104{off}{Y}ac"), format!("494104{off}{Y}ac")),
        (format!("4104{X}{X}ac"), format!("494104{X}{X}ac")),
        (
            format!("4104{}{Y}ac", "ff".repeat(32)),
            format!("494104{}{Y}ac", "ff".repeat(32)),
        ),
        (
            format!("4104{}ac", "00".repeat(64)),
            format!("494104{}ac", "00".repeat(64)),
        ),
        (format!("4102{X}{Y}ac"), format!("494102{X}{Y}ac")),
        (format!("2104{X}ac"), format!("292104{X}ac")),
        (format!("76a914{h}88ad"), format!("1f76a914{h}88ad")),
        (format!("a914{h}88"), format!("1da914{h}88")),
        (format!("0014{h}"), format!("1c0014{h}")),
        ("6a".into(), "076a".into()),
    ] {
        let script = from_hex(&script).unwrap();
        assert_eq!(to_hex(&short(&script)), compressed);
        assert_eq!(long(&from_hex(&compressed).unwrap()).unwrap(), script);
    }
    for kind in ["04", "05"] {
        for x in [off.clone(), "ff".repeat(32)] {
            assert_eq!(
                long(&from_hex(&format!("{kind}{x}")).unwrap()),
                Err(DecodeError::KeyNotOnCurve { offset: 33 })
            );
        }
    }
}

#[test]
fn long_scripts_are_kept_or_become_op_return() {
    for (length, expected) in [(10_000, 10_000), (10_001, 1)] {
        let script = vec![0x51; length];
        let compressed = short(&script);
        assert_eq!(long(&compressed).unwrap(), script);
        let mut reader = Reader::new(&compressed);
        let discarded = read_script(&mut reader, LongScripts::Discard).unwrap();
        assert_eq!(discarded.as_bytes().len(), expected);
        assert_eq!(discarded.is_unspendable(), expected == 1);
        assert!(reader.rest().is_empty());
    }
    // A length that nothing backs reserves nothing.
    assert!(matches!(
        long(&varint(u64::MAX)),
        Err(DecodeError::Truncated { .. })
    ));
}

fn round_trip(coin: &StoredCoin) -> Vec<u8> {
    let mut out = Vec::new();
    write_coin(&mut out, coin).unwrap();
    let mut reader = Reader::new(&out);
    assert_eq!(
        read_coin(&mut reader, LongScripts::Discard).as_ref(),
        Ok(coin)
    );
    reader.finish().unwrap();
    out
}

#[test]
fn coins_without_compact_form_are_refused() {
    let output = TxOut {
        value_sat: MAX_MONEY_SAT + 1,
        script: vec![].into(),
    };
    let mut out = Vec::new();
    let mut coin = StoredCoin {
        height: i32::MAX as u32,
        coinbase: true,
        output,
    };
    assert_eq!(
        write_coin(&mut out, &coin),
        Err(EncodeCoinError::AmountTooLarge {
            value_sat: MAX_MONEY_SAT + 1
        })
    );
    coin.output.value_sat -= 1;
    round_trip(&coin);
    coin.height += 1;
    assert_eq!(
        write_coin(&mut out, &coin),
        Err(EncodeCoinError::HeightTooLarge {
            height: coin.height
        })
    );
    assert!(out.is_empty());
}

#[test]
fn every_coin_that_real_blocks_spent_comes_back() {
    for (block, count) in [("367891", 20_817), ("866342", 7_972)] {
        let coins: Vec<serde_json::Value> = serde_json::from_slice(&common::read(&format!(
            "full-blocks/{block}/spent_utxos.zst"
        )))
        .unwrap();
        assert_eq!(coins.len(), count);
        for coin in coins {
            let script = coin["txout"]["script_pubkey"].as_str().unwrap();
            round_trip(&StoredCoin {
                height: coin["creation_height"]
                    .as_u64()
                    .unwrap()
                    .try_into()
                    .unwrap(),
                coinbase: coin["is_coinbase"].as_bool().unwrap(),
                output: TxOut {
                    value_sat: coin["txout"]["value"].as_u64().unwrap(),
                    script: from_hex(script).unwrap().into(),
                },
            });
        }
    }
    for name in [
        "full-blocks/block300025",
        "full-blocks/testnet3/block928816",
        "full-blocks/testnet3/block928828",
        "full-blocks/testnet3/block928831",
    ] {
        let block = common::read(&format!("{name}.raw"));
        let block = groundtackle_chain::decode_block(&block, &Default::default()).unwrap();
        let undo = common::read(&format!("{name}-undo.raw"));
        let mut reader = Reader::new(&undo);
        for _ in block
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.inputs)
        {
            let value_sat = reader.u64().unwrap();
            let script = reader.prefixed_bytes().unwrap().to_vec().into();
            let output = TxOut { value_sat, script };
            round_trip(&StoredCoin {
                height: 1,
                coinbase: false,
                output,
            });
        }
        reader.finish().unwrap();
    }
}

proptest! {
    #[test]
    fn varints_come_back(value: u64, bits in 0..64_u32) {
        let value = value >> bits;
        prop_assert_eq!(read_varint(&mut Reader::new(&varint(value))), Ok(value));
    }

    #[test]
    fn each_varint_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(value) = read_varint(&mut reader) {
            prop_assert_eq!(&varint(value), &bytes[..reader.position()]);
        }
    }

    #[test]
    fn amounts_come_back(value in 0..=MAX_MONEY_SAT, zeros in 0..12_u32) {
        let value = value / 10_u64.pow(zeros) * 10_u64.pow(zeros);
        prop_assert_eq!(decompress_amount(compress_amount(value).unwrap()), Some(value));
    }

    #[test]
    fn each_amount_has_one_form(compressed: u64, bits in 0..64_u32) {
        let compressed = compressed >> bits;
        if let Some(value) = decompress_amount(compressed) {
            prop_assert_eq!(compress_amount(value), Some(compressed));
        }
    }

    #[test]
    fn scripts_come_back(
        script in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(any::<u8>(), 65).prop_map(|mut key| {
                key[0] = 4 + key[0] % 4;
                [vec![0x41], key, vec![0xac]].concat()
            }),
            prop::array::uniform32(any::<u8>())
                .prop_filter_map("on the curve", |x| long(&[&[4][..], &x].concat()).ok()),
        ]
    ) {
        prop_assert_eq!(long(&short(&script)).unwrap(), script);
    }

    #[test]
    fn hostile_coins_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(coin) = read_coin(&mut reader, LongScripts::Keep) {
            round_trip(&coin);
        }
    }
}
