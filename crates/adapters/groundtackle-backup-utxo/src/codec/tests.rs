use groundtackle_utxo_store::{Coin, OutPoint, Script, TxOut, Txid};
use proptest::prelude::*;

use super::*;

fn coin(txid: u8, vout: u32, value_sat: u64, script: Vec<u8>) -> Coin {
    Coin {
        outpoint: OutPoint::new(Txid::from_bytes([txid; 32]), vout),
        output: TxOut {
            value_sat,
            script: Script::from_bytes(script),
        },
        height: 7,
        coinbase: false,
    }
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |length: usize| prop::collection::vec(any::<u8>(), length);
    let wrapped = move |(before, length, after): Template| {
        bytes(length).prop_map(move |payload| [before, &payload, after].concat())
    };
    let near = (
        0..TEMPLATES.len(),
        any::<prop::sample::Index>(),
        any::<u8>(),
        0..3_u8,
    );
    prop_oneof![
        4 => (0..TEMPLATES.len()).prop_flat_map(move |kind| wrapped(TEMPLATES[kind])),
        // A byte of a template off, one too many or one too few.
        2 => near.prop_flat_map(move |(kind, at, byte, change)| {
            wrapped(TEMPLATES[kind]).prop_map(move |mut script| {
                let at = at.index(script.len());
                match change {
                    0 => script[at] = byte,
                    1 => script.insert(at, byte),
                    _ => drop(script.remove(at)),
                }
                script
            })
        }),
        1 => (0..400_usize).prop_flat_map(bytes),
        1 => Just(Vec::new()),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(546),
        Just(u64::MAX),
        Just(10_000_000_000_000_000_000),
        any::<u64>(),
        (0..20_u32, 0..1_000_u64)
            .prop_map(|(zeros, digits)| digits.wrapping_mul(10_u64.pow(zeros))),
    ]
}

fn any_coins() -> impl Strategy<Value = Vec<Coin>> {
    let height = prop_oneof![Just(0), Just(u32::MAX), any::<u32>(), 0..1_000_u32];
    let vout = prop_oneof![0..3_u32, any::<u32>(), Just(u32::MAX)];
    // Few identifiers, so that there are runs, and again after others.
    let coin = (0..4_u8, vout, number(), script(), height, any::<bool>()).prop_map(
        |(txid, vout, value_sat, script, height, coinbase)| Coin {
            height,
            coinbase,
            ..coin(txid, vout, value_sat, script)
        },
    );
    let coin = coin.boxed();
    prop_oneof![
        3 => prop::collection::vec(coin.clone(), 0..60),
        1 => prop::collection::vec(coin.clone(), 60..400),
        // All the same but for the index.
        1 => (coin, 0..300_u32).prop_map(|(first, count)| {
            (0..count).map(|vout| {
                let mut coin = first.clone();
                coin.outpoint.vout = vout;
                coin
            }).collect()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_coins_come_back(coins in any_coins()) {
        let bytes = encode_coins(&coins).unwrap();
        prop_assert_eq!(&decode_coins(&bytes).unwrap(), &coins);
        prop_assert_eq!(encode_coins(&coins).unwrap(), bytes);
    }

    #[test]
    fn any_amount_comes_back(value_sat in number()) {
        let (mantissa, exponent) = split_amount(value_sat);
        prop_assert_eq!(join_amount(mantissa, exponent).unwrap(), value_sat);
    }

    #[test]
    fn what_is_cut_short_or_longer_is_refused(coins in any_coins(), at in any::<prop::sample::Index>()) {
        let mut bytes = encode_coins(&coins).unwrap();
        let cut = at.index(bytes.len());
        prop_assert!(decode_coins(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert_eq!(decode_coins(&bytes).unwrap_err(), CodecError::Trailing { bytes: 1 });
    }

    #[test]
    fn any_change_ends_with_coins_or_an_error(
        coins in any_coins(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_coins(&coins).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(coins) = decode_coins(&bytes) {
            prop_assert_eq!(decode_coins(&encode_coins(&coins).unwrap()).unwrap(), coins);
        }
    }
}

/// As `docs/backup-format.md` has it, byte by byte.
#[test]
fn the_bytes_are_those_of_the_specification() {
    let mut coins = vec![
        coin(0xaa, 0, 5_000, [&[0x00, 0x14][..], &[0x11; 20]].concat()),
        coin(0xaa, 300, 0, vec![0x51]),
        coin(0xbb, 0, 7, vec![0x52, 0x53]),
    ];
    coins[2].coinbase = true;
    let expected = [
        &b"C\x01"[..],
        // Coins, runs.
        &[3, 0, 0, 0, 2, 0, 0, 0],
        // Run lengths less one: a plane as it is.
        &[1, 0, 1, 0],
        &[0xaa; 32],
        &[0xbb; 32],
        // Heights.
        &[1, 0, 14, 15],
        // Indexes: 300 has two bytes.
        &[2, 0, 0, 44, 0, 0, 0, 1, 0],
        // Zeros, then what is before them.
        &[1, 0, 3, 0, 0],
        &[1, 0, 5, 0, 7],
        // Kinds, and the lengths of the two that are raw.
        &[1, 0, 6, 0, 0],
        &[1, 0, 1, 2],
        &[0x11; 20],
        &[0x51, 0x52, 0x53],
    ]
    .concat();
    assert_eq!(encode_coins(&coins).unwrap(), expected);
    assert_eq!(decode_coins(&expected).unwrap(), coins);
    assert_eq!(
        encode_coins(&[]).unwrap(),
        b"C\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn each_template_has_its_kind() {
    for (index, (before, length, after)) in TEMPLATES.iter().enumerate() {
        let script = [before, &vec![9; *length][..], after].concat();
        assert_eq!(
            split_script(&script),
            (index as u64 + 1, &[9; 64][..*length])
        );
    }
}

#[test]
fn equal_planes_take_two_bytes_and_small_numbers_are_packed() {
    let many: Vec<_> = (0..10_000)
        .map(|vout| coin(1, vout % 3, 546, vec![0x51]))
        .collect();
    let bytes = encode_coins(&many).unwrap();
    // The scripts alone have 10,000.
    assert!(bytes.len() < 11_500, "{}", bytes.len());
    assert_eq!(decode_coins(&bytes).unwrap(), many);
}

/// A few bytes that announce much: refused before anything is reserved for it.
#[test]
fn what_is_announced_is_bounded() {
    let header =
        |coins: u32, runs: u32| [&b"C\x01"[..], &coins.to_le_bytes(), &runs.to_le_bytes()].concat();
    for (bytes, wanted) in [
        (header(u32::MAX, 1), "more than a segment holds"),
        (header(3, 4), "4 runs of 3 coins"),
        (header(1 << 20, 1 << 20), "ends within"),
        // A run of more coins than there are.
        (
            [&header(3, 1)[..], &[1, 1, 3], &[0; 32], &[0, 0, 0, 0, 0, 0]].concat(),
            "more than 3",
        ),
        (
            [
                &header(3, 1)[..],
                &[1, 1, 1],
                &[0; 32],
                &[0, 0, 0, 0, 1, 1, 1, 0],
            ]
            .concat(),
            "ends within",
        ),
        (
            [&header(3, 1)[..], &[1, 1, 1], &[0; 32], &[0, 0, 0, 0, 0, 0]].concat(),
            "sum to 2",
        ),
        ([&header(3, 1)[..], &[9]].concat(), "numbers of 9 bytes"),
        ([&header(3, 1)[..], &[1, 3]].concat(), "no coding 3"),
        (
            [&header(3, 1)[..], &[1, 2, 4, 0, 0, 0, 1, 2, 3, 4]].concat(),
            "the run lengths",
        ),
        // A frame of more bytes than the plane has, and of fewer.
        (
            [&header(3, 1)[..], &[1, 2], &frame(2)].concat(),
            "the run lengths",
        ),
        (
            [&header(3, 1)[..], &[1, 2], &frame(0)].concat(),
            "the run lengths",
        ),
        (
            [
                &header(1, 1)[..],
                &[0],
                &[0; 32],
                &[0, 0, 1, 1, 20, 1, 1, 2, 0, 0],
            ]
            .concat(),
            "20 zeros",
        ),
        (
            [&header(1, 1)[..], &[0], &[0; 32], &[0, 0, 0, 0, 1, 1, 9, 0]].concat(),
            "9 is none",
        ),
        (
            [
                &header(1, 1)[..],
                &[0],
                &[0; 32],
                &[0, 5, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0],
            ]
            .concat(),
            "the indexes",
        ),
        (b"D\x01".to_vec(), "kind 68"),
        (b"C\x02".to_vec(), "format 2"),
        (b"C\x00".to_vec(), "no format 0"),
        (Vec::new(), "ends within its header"),
    ] {
        let error = decode_coins(&bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}, not {wanted}");
    }
}

/// Packed bytes with their length.
fn frame(bytes: usize) -> Vec<u8> {
    let packed = zstd::bulk::compress(&vec![0; bytes], 1).unwrap();
    [&(packed.len() as u32).to_le_bytes()[..], &packed].concat()
}

#[test]
fn more_coins_than_a_segment_holds_are_refused() {
    let coins = vec![coin(1, 0, 0, Vec::new()); MAX_SEGMENT_COINS + 1];
    let error = encode_coins(&coins).unwrap_err();
    assert_eq!(error, CodecError::TooManyCoins { coins: coins.len() });
    let most = encode_coins(&coins[1..]).unwrap();
    assert_eq!(decode_coins(&most).unwrap().len(), MAX_SEGMENT_COINS);
}
