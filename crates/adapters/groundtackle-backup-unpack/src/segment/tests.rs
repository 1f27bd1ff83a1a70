use proptest::prelude::*;

use super::*;

/// As the specification has them.
#[test]
fn the_example_of_the_specification() {
    let script = [&[0x00, 0x14][..], &[0x11; 20]].concat();
    let coin = |txid, vout, value_sat, script: &[u8], coinbase| Coin {
        txid: [txid; 32],
        vout,
        height: 7,
        coinbase,
        value_sat,
        script: script.to_vec(),
    };
    let wanted = [
        coin(0xaa, 0, 5_000, &script, false),
        coin(0xaa, 300, 0, &[0x51], false),
        coin(0xbb, 0, 7, &[0x52, 0x53], true),
    ];
    let segment = [
        &b"C\x01"[..],
        &[3, 0, 0, 0, 2, 0, 0, 0],
        &[1, 0, 1, 0],
        &[0xaa; 32],
        &[0xbb; 32],
        &[1, 0, 14, 15],
        &[2, 0, 0, 44, 0, 0, 0, 1, 0],
        &[1, 0, 3, 0, 0],
        &[1, 0, 5, 0, 7],
        &[1, 0, 6, 0, 0],
        &[1, 0, 1, 2],
        &[0x11; 20],
        &[0x51, 0x52, 0x53],
    ]
    .concat();
    assert_eq!(decode_coins(&segment).unwrap(), wanted);
    for cut in 0..segment.len() {
        assert!(decode_coins(&segment[..cut]).is_err());
    }
    assert!(decode_coins(&[&segment[..], &[0]].concat()).is_err());
    assert!(decode_deltas(&segment).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn any_bytes_end_with_an_answer(
        kind in prop_oneof![Just(b'C'), Just(b'D'), any::<u8>()],
        version in prop_oneof![9 => Just(1_u8), 1 => any::<u8>()],
        small in prop::collection::vec(0..4_u8, 0..16),
        rest in prop::collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], 0..300),
    ) {
        let segment = [&[kind, version][..], &small, &rest].concat();
        let _ = decode_coins(&segment);
        let _ = decode_deltas(&segment);
    }

    #[test]
    fn any_frame_ends_with_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0..5_000_usize) {
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat();
        for packed in [&bytes, &frame] {
            prop_assert!(unpack(packed, count).is_none_or(|unpacked| unpacked.len() == count));
        }
    }
}
