use std::collections::{BTreeMap, BTreeSet};

use groundtackle_utxo_store::{OutPoint, Script, TxOut, Txid};
use proptest::prelude::*;

use super::*;

type Set = BTreeMap<OutPoint, Coin>;

/// A chain of random blocks over a set that is kept naively: every step of a block is carried out as it comes.
#[derive(Debug)]
struct Chain {
    random: u64,
    /// The set after each block.
    sets: Vec<Set>,
    deltas: Vec<Delta>,
    /// Identifiers of coinbases, to be used again.
    coinbases: Vec<Txid>,
}

fn block(height: usize) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(height as u64).to_le_bytes());
    BlockHash::from_bytes(bytes)
}

impl Chain {
    fn new(seed: u64, blocks: usize) -> Self {
        let mut chain = Self {
            random: seed,
            sets: vec![Set::new()],
            deltas: Vec::new(),
            coinbases: Vec::new(),
        };
        for _ in 0..blocks {
            chain.grow();
        }
        chain
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn grow(&mut self) {
        let height = self.sets.len();
        let before = self.sets.last().unwrap().clone();
        let mut set = before.clone();
        let fresh = self.below(usize::MAX);
        let txid = |number: usize| {
            let mut bytes = [number as u8; 32];
            bytes[..8].copy_from_slice(&(fresh as u64).to_le_bytes());
            bytes[8..16].copy_from_slice(&(height as u64).to_le_bytes());
            Txid::from_bytes(bytes)
        };
        for number in 0..self.below(6) {
            let coinbase = number == 0;
            let mut id = txid(number);
            if coinbase {
                // Now and then an earlier coinbase again: unspent, spent in part, or spent.
                if self.below(3) == 0 && !self.coinbases.is_empty() {
                    let index = self.below(self.coinbases.len());
                    id = self.coinbases[index];
                } else {
                    self.coinbases.push(id);
                }
            } else {
                for _ in 0..self.below(4) {
                    let index = self.below(set.len());
                    // Some of these were made by this block.
                    if let Some(outpoint) = set.keys().nth(index).copied() {
                        set.remove(&outpoint);
                    }
                }
            }
            for vout in 0..self.below(4) as u32 {
                let outpoint = OutPoint::new(id, vout);
                let output = TxOut {
                    value_sat: self.below(5) as u64,
                    script: Script::from_bytes(vec![7; self.below(40)]),
                };
                let coin = Coin {
                    outpoint,
                    output,
                    height: height as u32,
                    coinbase,
                };
                set.insert(outpoint, coin);
            }
        }
        // Whatever the steps were, this is what came of them.
        let gone = |from: &Set, to: &Set| {
            let gone = from
                .iter()
                .filter(|(outpoint, coin)| to.get(outpoint) != Some(coin));
            gone.map(|(_, coin)| coin.clone()).collect()
        };
        self.deltas.push(Delta {
            tip: Tip {
                height: height as u32,
                hash: block(height),
                median_time_past: 7 * height as u32,
            },
            previous: block(height - 1),
            created: gone(&set, &before),
            spent: gone(&before, &set),
        });
        self.sets.push(set);
    }
}

fn laid_over(set: &Set, overlay: Overlay) -> Set {
    let mut set = set.clone();
    let (removed, added) = overlay.into_parts();
    for (outpoint, coin) in removed {
        assert_eq!(set.remove(&outpoint), Some(coin));
    }
    for (outpoint, coin) in added {
        assert_eq!(set.insert(outpoint, coin), None);
    }
    set
}

fn digest(set: &Set) -> [u8; 32] {
    let mut digest = MuHash3072::new();
    digest.insert_all(set.values().map(coin_element));
    digest.digest()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn overlays_lead_from_any_set_to_any_other(seed in any::<u64>(), blocks in 1..30_usize, cut in any::<(prop::sample::Index, prop::sample::Index)>()) {
        let chain = Chain::new(seed, blocks);
        let (a, b) = (cut.0.index(blocks + 1), cut.1.index(blocks + 1));
        let (a, b) = (a.min(b), a.max(b));
        let mut forwards = Overlay::at(block(a));
        for delta in &chain.deltas[a..b] {
            forwards.forwards(delta).unwrap();
        }
        prop_assert_eq!(forwards.block(), Some(block(b)));
        let mut there_and_back = forwards.clone();
        prop_assert_eq!(&laid_over(&chain.sets[a], forwards), &chain.sets[b]);
        let mut backwards = Overlay::at(block(b));
        for delta in chain.deltas[a..b].iter().rev() {
            backwards.backwards(delta).unwrap();
            there_and_back.backwards(delta).unwrap();
        }
        prop_assert_eq!(&laid_over(&chain.sets[b], backwards), &chain.sets[a]);
        prop_assert_eq!(there_and_back, Overlay::at(block(a)));
    }

    #[test]
    fn the_digest_follows(seed in any::<u64>()) {
        let chain = Chain::new(seed, 6);
        let mut chained = MuHash3072::new();
        for (delta, set) in chain.deltas.iter().zip(&chain.sets[1..]) {
            delta.forwards(&mut chained);
            prop_assert_eq!(chained.digest(), digest(set));
        }
        for (delta, set) in chain.deltas.iter().zip(&chain.sets).rev() {
            delta.backwards(&mut chained);
            prop_assert_eq!(chained.digest(), digest(set));
        }
    }

    #[test]
    fn deltas_come_back(seed in any::<u64>(), blocks in 0..20_usize, segment_bytes in prop_oneof![0..400_usize, 400..20_000_usize]) {
        let deltas = Chain::new(seed, blocks).deltas;
        let bytes = encode_deltas(&deltas).unwrap();
        prop_assert_eq!(&decode_deltas(&bytes).unwrap(), &deltas);

        let mut cutter = Cutter::new(segment_bytes);
        let mut segments: Vec<_> = deltas.iter().cloned().flat_map(|delta| cutter.push(delta)).collect();
        segments.extend(cutter.finish());
        let mut joiner = Joiner::after(block(0));
        let mut joined = Vec::new();
        for parts in segments {
            let size: usize = parts.iter().flat_map(|part| part.delta.created.iter().chain(&part.delta.spent)).map(crate::codec::raw_bytes).sum();
            let coins: usize = parts.iter().map(|part| part.delta.created.len() + part.delta.spent.len()).sum();
            prop_assert!(size <= segment_bytes || coins == 1);
            let bytes = encode_parts(&parts).unwrap();
            prop_assert_eq!(&decode_parts(&bytes).unwrap(), &parts);
            prop_assert_eq!(decode_deltas(&bytes).is_ok(), parts.iter().all(|part| part.number == 0 && part.last));
            for part in parts {
                joined.extend(joiner.push(part).unwrap());
            }
        }
        joiner.finish().unwrap();
        prop_assert_eq!(joined, deltas);
    }

    #[test]
    fn any_change_ends_with_deltas_or_an_error(
        seed in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_deltas(&Chain::new(seed, 4).deltas).unwrap();
        prop_assert!(decode_parts(&bytes[..cut.index(bytes.len())]).is_err());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(parts) = decode_parts(&bytes) {
            prop_assert_eq!(decode_parts(&encode_parts(&parts).unwrap()).unwrap(), parts);
        }
    }
}

/// One of each coin in a delta that takes more than one segment.
fn parts() -> Vec<DeltaPart> {
    let mut chain = Chain::new(3, 0);
    while chain
        .deltas
        .last()
        .is_none_or(|delta| delta.created.len() < 3)
    {
        chain.grow();
    }
    let deltas = chain.deltas.split_off(chain.deltas.len() - 1);
    let mut cutter = Cutter::new(1);
    let full: Vec<_> = deltas
        .into_iter()
        .flat_map(|delta| cutter.push(delta))
        .collect();
    full.into_iter().chain(cutter.finish()).flatten().collect()
}

#[test]
fn gaps_are_refused() {
    let parts = parts();
    assert!(parts.len() >= 3);
    let join = |parts: Vec<&DeltaPart>| -> Result<usize, CodecError> {
        let mut joiner = Joiner::default();
        let mut joined = 0;
        for part in parts {
            joined += usize::from(joiner.push(part.clone())?.is_some());
        }
        joiner.finish()?;
        Ok(joined)
    };
    assert_eq!(join(parts.iter().collect()), Ok(1));
    // Without each of them, and with each of them twice.
    for index in 0..parts.len() {
        let mut some: Vec<_> = parts.iter().collect();
        some.remove(index);
        assert!(join(some).is_err(), "without part {index}");
        let mut some: Vec<_> = parts.iter().collect();
        some.insert(index, &parts[index]);
        assert!(join(some).is_err(), "twice part {index}");
    }
    // Parts of other blocks, and blocks that do not follow.
    let mut other = parts.clone();
    other[1].delta.tip.hash = block(9_999);
    assert!(join(other.iter().collect()).is_err());
    let deltas = Chain::new(4, 5).deltas;
    let whole: Vec<_> = deltas.into_iter().map(DeltaPart::from).collect();
    assert_eq!(join(whole.iter().collect()), Ok(5));
    assert!(join(vec![&whole[0], &whole[2]]).is_err());
    assert!(Joiner::after(block(1)).push(whole[0].clone()).is_err());
    assert!(Joiner::after(block(0)).push(whole[0].clone()).is_ok());
}

#[test]
fn overlays_refuse_what_contradicts_them() {
    let chain = Chain::new(5, 8);
    let some = chain
        .deltas
        .iter()
        .find(|delta| !delta.created.is_empty() && !delta.spent.is_empty())
        .unwrap();
    let follow = |change: fn(&mut Delta)| {
        let mut next = some.clone();
        next.previous = some.tip.hash;
        change(&mut next);
        let mut overlay = Overlay::default();
        overlay.forwards(some).unwrap();
        overlay.forwards(&next)
    };
    let refused = |change: fn(&mut Delta)| {
        assert!(matches!(
            follow(change),
            Err(OverlayError::Contradiction { .. })
        ));
    };
    // Made twice, spent twice, spent as another coin.
    refused(|next| next.spent.clear());
    refused(|next| next.created.clear());
    refused(|next| {
        next.spent = std::mem::take(&mut next.created);
        next.spent[0].height += 1;
    });
    assert_eq!(
        follow(|next| next.spent = std::mem::take(&mut next.created)),
        Ok(())
    );
    assert!(matches!(
        follow(|next| next.previous = BlockHash::ZERO),
        Err(OverlayError::NotNext { .. })
    ));
}

/// The two of main net: the coin that is overwritten comes back with its own height.
#[test]
fn overwritten_coinbases_come_back() {
    let coin = |height| Coin {
        outpoint: OutPoint::new(Txid::from_bytes([1; 32]), 0),
        output: TxOut {
            value_sat: 5_000_000_000,
            script: Script::from_bytes(vec![0x51]),
        },
        height,
        coinbase: true,
    };
    let (earlier, later) = (coin(91_812), coin(91_842));
    let delta = Delta {
        tip: Tip {
            height: 91_842,
            hash: block(91_842),
            median_time_past: 0,
        },
        previous: block(91_841),
        created: vec![later.clone()],
        spent: vec![earlier.clone()],
    };
    let mut overlay = Overlay::default();
    overlay.forwards(&delta).unwrap();
    let of = |coins: &[&Coin]| {
        coins
            .iter()
            .map(|coin| (coin.outpoint, (*coin).clone()))
            .collect::<Set>()
    };
    assert_eq!(
        overlay.clone().into_parts(),
        (of(&[&earlier]), of(&[&later]))
    );
    let outpoints: BTreeSet<_> = overlay
        .removed()
        .keys()
        .chain(overlay.added().keys())
        .collect();
    assert_eq!(outpoints.len(), 1);
    overlay.backwards(&delta).unwrap();
    assert_eq!(overlay.into_parts(), (Set::new(), Set::new()));
}
