//! A seeded generator of blocks with the shape of real ones.
//!
//! What is kept: inputs and outputs per transaction, the share of inputs that spend a coin of their own block, the
//! age of the other spent coins, the mix of locking scripts, the spread of amounts. What is not: amounts are not
//! conserved, scripts do not parse beyond their template, and txids are random rather than hashes.
//!
//! The pool of spendable coins is bounded, so a chain of any length is generated in bounded memory: past the bound
//! random coins are forgotten and stay unspent for ever, as lost coins do on a real chain.

use std::collections::VecDeque;

/// One transaction. The first of each block has no inputs: it is the block's coinbase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenTx {
    /// Transaction id, random and unique.
    pub txid: [u8; 32],
    /// Spent outpoints: txid and output index.
    pub inputs: Vec<([u8; 32], u32)>,
    /// Outputs: satoshis and locking script.
    pub outputs: Vec<(u64, Vec<u8>)>,
}

/// One block of the generated chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenBlock {
    /// Height, from 0.
    pub height: u32,
    /// Transactions in block order: a child may follow its parent.
    pub txs: Vec<GenTx>,
}

/// An outpoint: txid and output index.
type Coin = ([u8; 32], u32);

/// Number of values in a bucket of a distribution: from, to (both inclusive), weight.
type Buckets = [(u32, u32, u32); 5];

/// The shape of one real block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The main net block that it was counted in.
    pub source_height: u32,
    inputs: Buckets,
    outputs: Buckets,
    /// Per cent of inputs that spend a coin of the same block.
    same_block: u32,
}

/// Shapes counted in main net blocks of four eras. A generated block draws one of them.
pub const SHAPES: [Shape; 4] = [
    shape(300_025, [520, 240, 150, 60, 30], [100, 820, 50, 30, 10], 13),
    shape(574_200, [830, 100, 40, 20, 4], [80, 740, 150, 30, 5], 19),
    shape(702_861, [760, 140, 70, 20, 9], [160, 790, 30, 6, 10], 5),
    shape(866_342, [960, 20, 10, 10, 3], [70, 880, 50, 7, 1], 51),
];

/// Age in blocks of coins spent outside their own block: up to, weight. Counted in block 866342.
const AGES: [(u32, u32); 6] = [
    (6, 4),
    (144, 15),
    (1_008, 13),
    (4_320, 4),
    (52_560, 5),
    (u32::MAX, 8),
];

const fn shape(source_height: u32, inputs: [u32; 5], outputs: [u32; 5], same_block: u32) -> Shape {
    Shape {
        source_height,
        inputs: buckets(inputs, 60),
        outputs: buckets(outputs, 120),
        same_block,
    }
}

const fn buckets(weights: [u32; 5], most: u32) -> Buckets {
    let [one, two, few, some, many] = weights;
    [
        (1, 1, one),
        (2, 2, two),
        (3, 5, few),
        (6, 20, some),
        (21, most, many),
    ]
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratorConfig {
    /// The same seed gives the same chain, on every machine and with every release of every dependency.
    pub seed: u64,
    /// Transactions per block, the coinbase included, once there are coins enough to spend.
    pub txs_per_block: usize,
    /// Most coins that are remembered as spendable. About 40 bytes each.
    pub max_pool: usize,
    /// Blocks before a coinbase output may be spent: 0 means from the next block on, 100 is Bitcoin's rule. Until
    /// the first coinbase matures blocks hold nothing else.
    pub coinbase_maturity: u32,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            txs_per_block: 2_500,
            max_pool: 1_000_000,
            coinbase_maturity: 0,
        }
    }
}

/// A chain without end, block by block.
#[derive(Debug, Clone)]
pub struct ChainGenerator {
    config: GeneratorConfig,
    rng: SplitMix64,
    height: u32,
    /// Spendable coins by the block that created them; the index is the height.
    pool: Vec<Vec<Coin>>,
    pooled: usize,
    /// Coinbase outputs that wait for their maturity: height at which they are spendable, coins.
    immature: VecDeque<(u32, Vec<Coin>)>,
}

impl ChainGenerator {
    /// Starts a chain at height 0.
    #[must_use]
    pub fn new(config: GeneratorConfig) -> Self {
        let rng = SplitMix64(config.seed);
        Self {
            config,
            rng,
            height: 0,
            pool: Vec::new(),
            pooled: 0,
            immature: VecDeque::new(),
        }
    }

    /// Coins that are remembered as spendable now.
    #[must_use]
    pub fn pooled(&self) -> usize {
        self.pooled
    }

    /// Generates the next block.
    pub fn next_block(&mut self) -> GenBlock {
        let height = self.height;
        self.release_mature();
        self.pool.resize_with(height as usize + 1, Vec::new);
        let shape = *self.rng.pick(&SHAPES).unwrap_or(&SHAPES[3]);

        let mut txs = Vec::with_capacity(self.config.txs_per_block);
        let coinbase = self.coinbase();
        self.immature.push_back((
            height + self.config.coinbase_maturity.max(1),
            spendable(&coinbase),
        ));
        txs.push(coinbase);

        // Coins of this block stay apart until it ends, so that the two kinds of spends do not mix.
        let mut fresh: Vec<Coin> = Vec::new();
        while txs.len() < self.config.txs_per_block {
            let wanted = self.rng.bucket(&shape.inputs);
            let mut inputs = Vec::with_capacity(wanted as usize);
            for _ in 0..wanted {
                let from_fresh = self.rng.below(100) < u64::from(shape.same_block);
                let coin = if from_fresh && !fresh.is_empty() {
                    self.rng.take(&mut fresh)
                } else {
                    self.take_aged()
                };
                match coin.or_else(|| self.rng.take(&mut fresh)) {
                    Some(coin) => inputs.push(coin),
                    None => break,
                }
            }
            if inputs.is_empty() {
                break;
            }
            let outputs = self.rng.bucket(&shape.outputs);
            let tx = GenTx {
                txid: self.rng.bytes32(),
                inputs,
                outputs: (0..outputs).map(|_| self.output()).collect(),
            };
            fresh.extend(spendable(&tx));
            txs.push(tx);
        }
        self.pooled += fresh.len();
        if let Some(bucket) = self.pool.get_mut(height as usize) {
            bucket.append(&mut fresh);
        }
        self.forget_beyond_bound();
        self.height += 1;
        GenBlock { height, txs }
    }

    fn release_mature(&mut self) {
        while let Some((at, _)) = self.immature.front() {
            if *at > self.height {
                break;
            }
            if let Some((at, mut coins)) = self.immature.pop_front() {
                let born = at - self.config.coinbase_maturity.max(1);
                self.pooled += coins.len();
                if let Some(bucket) = self.pool.get_mut(born as usize) {
                    bucket.append(&mut coins);
                }
            }
        }
    }

    /// A wide coinbase while there is little to spend, so that blocks fill within the first few.
    fn coinbase(&mut self) -> GenTx {
        let outputs = if self.pooled < self.config.txs_per_block {
            self.config.txs_per_block.min(1_000)
        } else {
            1 + self.rng.below(2) as usize
        };
        GenTx {
            txid: self.rng.bytes32(),
            inputs: Vec::new(),
            outputs: (0..outputs).map(|_| self.output()).collect(),
        }
    }

    fn take_aged(&mut self) -> Option<Coin> {
        if self.pooled == 0 {
            return None;
        }
        let total: u32 = AGES.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.rng.below(u64::from(total)) as u32;
        let mut from = 1;
        let mut age = u32::MAX;
        for (to, weight) in AGES {
            if draw < weight {
                age = from + self.rng.below(u64::from(to - from) + 1) as u32;
                break;
            }
            draw -= weight;
            from = to + 1;
        }
        // A chain younger than the age wanted: any block will do.
        let start = match self.height.checked_sub(age) {
            Some(born) => born as usize,
            None => self.rng.below(u64::from(self.height) + 1) as usize,
        };
        // The nearest block with coins left, older first.
        let buckets = self.pool.len();
        for step in 0..buckets {
            let index = (start + buckets - step) % buckets;
            if let Some(bucket) = self.pool.get_mut(index)
                && let Some(coin) = self.rng.take(bucket)
            {
                give_back(bucket);
                self.pooled -= 1;
                return Some(coin);
            }
        }
        None
    }

    fn forget_beyond_bound(&mut self) {
        while self.pooled > self.config.max_pool {
            let index = self.rng.below(self.pool.len() as u64) as usize;
            if let Some(bucket) = self.pool.get_mut(index)
                && self.rng.take(bucket).is_some()
            {
                give_back(bucket);
                self.pooled -= 1;
            }
        }
    }

    /// Amounts are spread evenly over their orders of magnitude, from dust to ten coins.
    fn output(&mut self) -> (u64, Vec<u8>) {
        let script = self.script();
        let value = if is_unspendable(&script) {
            0
        } else {
            let magnitude = 9 + self.rng.below(21);
            546 + (1_u64 << magnitude) + self.rng.below(1 << magnitude)
        };
        (value, script)
    }

    fn script(&mut self) -> Vec<u8> {
        let hash = self.rng.bytes32();
        let [short @ .., _, _, _, _, _, _, _, _, _, _, _, _] = &hash;
        match self.rng.below(100) {
            0..40 => [&[0x00, 0x14][..], short].concat(),
            40..60 => [&[0x51, 0x20][..], &hash].concat(),
            60..78 => [&[0x76, 0xa9, 0x14][..], short, &[0x88, 0xac]].concat(),
            78..93 => [&[0xa9, 0x14][..], short, &[0x87]].concat(),
            93..96 => [&[0x00, 0x20][..], &hash].concat(),
            96..99 => {
                let length = 8 + self.rng.below(72) as usize;
                let mut script = vec![0x6a];
                script.extend(hash.iter().cycle().take(length));
                script
            }
            // Bare multisig and the like.
            _ => {
                let length = 71 + self.rng.below(1_200) as usize;
                let mut script = vec![0x52];
                script.extend(hash.iter().cycle().take(length));
                script
            }
        }
    }
}

impl Iterator for ChainGenerator {
    type Item = GenBlock;

    fn next(&mut self) -> Option<GenBlock> {
        Some(self.next_block())
    }
}

/// Old blocks hold few coins: without this the pool would take the memory of all coins that ever were.
fn give_back(bucket: &mut Vec<Coin>) {
    if bucket.capacity() > 16 && bucket.capacity() > 2 * bucket.len() {
        bucket.shrink_to(bucket.len() + bucket.len() / 4);
    }
}

/// True for a script that nobody can ever spend: such an output is no coin.
#[must_use]
pub fn is_unspendable(script: &[u8]) -> bool {
    script.first() == Some(&0x6a) || script.len() > 10_000
}

fn spendable(tx: &GenTx) -> Vec<Coin> {
    (0_u32..)
        .zip(&tx.outputs)
        .filter(|(_, (_, script))| !is_unspendable(script))
        .map(|(vout, _)| (tx.txid, vout))
        .collect()
}

/// SplitMix64: eight lines that will give the same chain in ten years, which no generator of a crate promises.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a wide product: even enough for bounds far below 2^64, and quicker than a remainder.
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        (wide >> 64) as u64
    }

    fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    fn take<T>(&mut self, items: &mut Vec<T>) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        let index = self.below(items.len() as u64) as usize;
        Some(items.swap_remove(index))
    }

    fn bucket(&mut self, buckets: &Buckets) -> u32 {
        let total: u32 = buckets.iter().map(|(_, _, weight)| weight).sum();
        let mut draw = self.below(u64::from(total)) as u32;
        for &(from, to, weight) in buckets {
            if draw < weight {
                return from + self.below(u64::from(to - from) + 1) as u32;
            }
            draw -= weight;
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn config(seed: u64) -> GeneratorConfig {
        GeneratorConfig {
            seed,
            txs_per_block: 300,
            max_pool: 5_000,
            ..GeneratorConfig::default()
        }
    }

    #[test]
    fn same_seed_same_chain() {
        let first: Vec<_> = ChainGenerator::new(config(7)).take(20).collect();
        let second: Vec<_> = ChainGenerator::new(config(7)).take(20).collect();
        let other: Vec<_> = ChainGenerator::new(config(8)).take(20).collect();
        assert_eq!(first, second);
        assert_ne!(first, other);
    }

    #[test]
    fn every_input_spends_an_earlier_unspent_coin() {
        for maturity in [0, 10] {
            let mut coins = HashSet::new();
            let mut created_at = std::collections::HashMap::new();
            let mut generator = ChainGenerator::new(GeneratorConfig {
                coinbase_maturity: maturity,
                ..config(3)
            });
            for block in generator.by_ref().take(60) {
                for (index, tx) in block.txs.iter().enumerate() {
                    assert_eq!(tx.inputs.is_empty(), index == 0);
                    for input in &tx.inputs {
                        assert!(coins.remove(input), "{input:?} is not spendable");
                        if let Some(born) = created_at.get(&input.0) {
                            assert!(block.height >= born + maturity);
                        }
                    }
                    if index == 0 {
                        created_at.insert(tx.txid, block.height);
                    }
                    coins.extend(spendable(tx));
                }
            }
            assert!(generator.pooled() <= 5_000);
        }
    }

    #[test]
    fn blocks_fill_and_keep_the_shape() {
        let blocks: Vec<_> = ChainGenerator::new(config(5)).take(200).collect();
        assert!(blocks.iter().skip(5).all(|block| block.txs.len() == 300));
        let txs: Vec<_> = blocks
            .iter()
            .skip(5)
            .flat_map(|block| block.txs.iter().skip(1))
            .collect();
        let share = |count: usize| count * 100 / txs.len();
        // The mean of the four shapes: 77 % spend one coin, 81 % make two outputs.
        let one_input = share(txs.iter().filter(|tx| tx.inputs.len() == 1).count());
        let two_outputs = share(txs.iter().filter(|tx| tx.outputs.len() == 2).count());
        assert!((70..85).contains(&one_input), "{one_input} %");
        assert!((74..88).contains(&two_outputs), "{two_outputs} %");
    }
}
