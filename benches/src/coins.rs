//! Coins to back up.
//!
//! They are made up, with the statistics of main net where they are known (coins of a transaction and length of a script,
//! from `gettxoutsetinfo` at heights 856,748 and 915,117), and guessed where they are not (mix of scripts within that
//! length, amounts, heights).

use groundtackle_chain::{OutPoint, Script, TxOut, Txid};
use groundtackle_utxo_store::Coin;

/// The height of the highest block that made one of them.
pub const TIP: u32 = 915_000;

#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words
            .take(count.div_ceil(8))
            .flatten()
            .take(count)
            .collect()
    }

    /// One of the values by their weights.
    fn pick<T: Copy>(&mut self, weighted: &[(u64, T)]) -> T {
        let sum = weighted.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, value) in weighted {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *value,
            }
        }
        unreachable!("it is below the sum")
    }

    /// 27.6 bytes on average; main net has 27.2 and 28.3.
    fn script(&mut self) -> Vec<u8> {
        let (before, payload, after): (&[u8], usize, &[u8]) = self.pick(&[
            (330, (&[0x51, 0x20], 32, &[])),
            (300, (&[0x00, 0x14], 20, &[])),
            (262, (&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac])),
            (90, (&[0xa9, 0x14], 20, &[0x87])),
            (8, (&[0x00, 0x20], 32, &[])),
            // One of three keys, and a key alone.
            (9, (&[0x51, 0x21], 102, &[0x53, 0xae])),
            (1, (&[0x41, 0x04], 64, &[0xac])),
        ]);
        [before, &self.bytes(payload), after].concat()
    }

    /// A guess: half of them dust of a few sizes, a few round ones, the rest anything.
    fn amount(&mut self) -> u64 {
        match self.below(100) {
            0..30 => 546,
            30..42 => 330,
            42..46 => 294,
            46..50 => 600 + self.below(400),
            50..58 => {
                (1 + self.below(50)) * self.pick(&[(3, 1_000), (3, 100_000), (2, 10_000_000)])
            }
            _ => {
                let bits = 10 + self.below(20);
                (1 << bits) + self.below(1 << bits)
            }
        }
    }

    /// A guess: half of them of the last 130,000 blocks.
    fn height(&mut self) -> u32 {
        let height = match self.below(2) {
            0 => u64::from(TIP) - self.below(130_000),
            _ => 100_000 + self.below(u64::from(TIP) - 100_000),
        };
        height as u32
    }

    /// 1.44 on average, as main net.
    fn coins_of_a_transaction(&mut self) -> u64 {
        let (least, more) = self.pick(&[
            (800, (1, 1)),
            (140, (2, 1)),
            (35, (3, 3)),
            (20, (6, 5)),
            (5, (11, 5)),
        ]);
        least + self.below(more)
    }

    /// A transaction's coins.
    fn transaction(&mut self, txid: Txid, height: u32, coins: &mut Vec<Coin>) {
        let coinbase = self.below(500) == 0;
        let many = self.coins_of_a_transaction();
        let mut vout = self.pick(&[(5, 0), (4, 1), (1, 2)]);
        for _ in 0..many {
            let output = TxOut {
                value_sat: self.amount(),
                script: Script::from_bytes(self.script()),
            };
            coins.push(Coin {
                outpoint: OutPoint::new(txid, vout),
                output,
                height,
                coinbase,
            });
            vout += 1 + self.below(2) as u32;
        }
    }
}

/// Any, or one that begins like this.
fn txid(random: &mut Random, first: Option<[u8; 4]>) -> Txid {
    let mut txid = [0; 32];
    let bytes = random.bytes(32);
    let bytes = first.into_iter().flatten().chain(bytes);
    txid.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Txid::from_bytes(txid)
}

/// As a scan gives them: by identifier. At least so many.
#[must_use]
pub fn some(count: usize) -> Vec<Coin> {
    let mut random = Random(1);
    let mut coins = Vec::with_capacity(count);
    let mut txids: Vec<_> = (0..count).map(|_| txid(&mut random, None)).collect();
    txids.sort();
    for txid in txids {
        let height = random.height();
        random.transaction(txid, height, &mut coins);
        if coins.len() >= count {
            break;
        }
    }
    coins
}

/// Transactions of a [`Slice`].
const SLICE_TRANSACTIONS: u64 = 10_000;

/// A set too large for memory, in slices of ascending identifiers, and what it is once one transaction in a hundred is
/// replaced by another.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    count: u32,
}

/// A part of the set, by identifier.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The set before.
    pub before: Vec<Coin>,
    /// The set after.
    pub after: Vec<Coin>,
    /// What it has lost.
    pub spent: Vec<Coin>,
    /// What it has gained.
    pub created: Vec<Coin>,
}

impl Slices {
    /// Sets of about so many [raw] bytes.
    #[must_use]
    pub fn of(raw_bytes: u64) -> Self {
        // 1.44 coins of 77.6 bytes.
        let count = raw_bytes / (SLICE_TRANSACTIONS * 112);
        Self {
            count: count.clamp(1, u64::from(u32::MAX)) as u32,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// One of them, the same each time.
    #[must_use]
    pub fn slice(&self, number: u32) -> Slice {
        let mut random = Random(u64::from(number) << 32 | 1);
        let width = (1 << 32) / u64::from(self.count);
        let mut transactions: Vec<_> = (0..SLICE_TRANSACTIONS)
            .map(|_| {
                let first = u64::from(number) * width + random.below(width);
                let id = txid(&mut random, Some((first as u32).to_be_bytes()));
                (id, random.below(100) == 0, random.next())
            })
            .collect();
        transactions.sort();
        let mut slice = Slice::default();
        let mut fresh = Vec::new();
        for (id, replaced, seed) in transactions {
            let mut random = Random(seed);
            let (from, height) = (slice.before.len(), random.height());
            random.transaction(id, height, &mut slice.before);
            let coins = slice.before.get(from..).unwrap_or_default();
            if !replaced {
                slice.after.extend_from_slice(coins);
                continue;
            }
            slice.spent.extend_from_slice(coins);
            let first = id.as_bytes().first_chunk().copied();
            let id = txid(&mut random, first);
            random.transaction(id, TIP, &mut fresh);
        }
        slice.after.extend_from_slice(&fresh);
        slice.after.sort_by_key(|coin| coin.outpoint);
        slice.created = fresh;
        slice
    }
}

/// Records without any packing: identifier, index, height and coinbase, amount, length of the script in two bytes, script.
#[must_use]
pub fn raw(coins: &[Coin]) -> Vec<u8> {
    // Most scripts have 35 bytes at most.
    let mut out = Vec::with_capacity(coins.len() * 85);
    for coin in coins {
        let script = coin.output.script.as_bytes();
        out.extend_from_slice(coin.outpoint.txid.as_bytes());
        out.extend_from_slice(&coin.outpoint.vout.to_le_bytes());
        out.extend_from_slice(&(coin.height << 1 | u32::from(coin.coinbase)).to_le_bytes());
        out.extend_from_slice(&coin.output.value_sat.to_le_bytes());
        out.extend_from_slice(&(script.len() as u16).to_le_bytes());
        out.extend_from_slice(script);
    }
    out
}

/// The first coin of [`raw`] records, and the rest; `None` where they end within it.
#[must_use]
pub fn read_raw(records: &[u8]) -> Option<(Coin, &[u8])> {
    let (id, rest) = records.split_first_chunk::<32>()?;
    let (vout, rest) = rest.split_first_chunk()?;
    let (code, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (script, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let code = u32::from_le_bytes(*code);
    let coin = Coin {
        outpoint: OutPoint::new(Txid::from_bytes(*id), u32::from_le_bytes(*vout)),
        output: TxOut {
            value_sat: u64::from_le_bytes(*value),
            script: Script::from(script),
        },
        height: code >> 1,
        coinbase: code & 1 == 1,
    };
    Some((coin, rest))
}

/// How many of these bytes are whole [`raw`] records.
#[must_use]
pub fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some([low, high]) = bytes.get(at + 48..at + 50) {
        let end = at + 50 + usize::from(u16::from_le_bytes([*low, *high]));
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}
