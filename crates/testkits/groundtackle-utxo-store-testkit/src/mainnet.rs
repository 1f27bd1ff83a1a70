//! Blocks 0 to 599 of Bitcoin's main network, and what is known of the set after some of them.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{ChainBlock, SetStatistics};

/// What Bitcoin Core's `gettxoutsetinfo` says after a block; hashes as it prints them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The block's height.
    pub height: u32,
    /// Its hash.
    pub hash: &'static str,
    /// The MuHash of the set.
    pub muhash: &'static str,
    /// The serialised hash of the set.
    pub hash_serialized_3: &'static str,
    /// The SHA-256 of the file that `dumptxoutset` writes (version 2), as `sha256sum` prints it.
    pub snapshot_sha256: &'static str,
    /// Coins.
    pub txouts: u64,
    /// Transactions with a coin.
    pub transactions: u64,
    /// 50 and the script's length for each coin.
    pub bogosize: u64,
    /// All amounts, in satoshis.
    pub total_amount_sat: u64,
}

/// Computed independently of this project; the one of height 599 agrees with Bitcoin Core's own
/// chain state coin by coin.
pub const ANSWERS: &[Answer] = &[
    Answer {
        height: 0,
        hash: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        muhash: "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8",
        hash_serialized_3: "56944c5d3f98413ef45cf54545538103cc9f298e0575820ad3591376e2e0f65d",
        snapshot_sha256: "2b1141d5a38fe4d099604a2a48951a46b2c089048f353e8896306a78383c01f8",
        txouts: 0,
        transactions: 0,
        bogosize: 0,
        total_amount_sat: 0,
    },
    Answer {
        height: 1,
        hash: "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048",
        muhash: "1bd372a3f225dc6f8ce0e10ead6f8b0b00e65a2ff4a4c9ccaa615a69fbeeb2f2",
        hash_serialized_3: "b911fd5864945251985ebc2820ff542df1cebe84255ee476684fa9d026a1b578",
        snapshot_sha256: "6d05975b39667f10f02909dced4be7b2e9e02427a9edfa4f5370ffed8e17452d",
        txouts: 1,
        transactions: 1,
        bogosize: 117,
        total_amount_sat: 5_000_000_000,
    },
    Answer {
        height: 2,
        hash: "000000006a625f06636b8bb6ac7b960a8d03705d1ace08b1a19da3fdcc99ddbd",
        muhash: "dfd1c34195baa0a898f04d40097841e1d569e81ce845a21e79c4ab25c725c875",
        hash_serialized_3: "31ea488de5992aa5113374cbe2dc8718ec78b96a79a4f70b4124e36a29eb4988",
        snapshot_sha256: "2d2a803f1ebb4ed90c06cb62bf33543a7b998df776c79ca8f2d19aec49df3a41",
        txouts: 2,
        transactions: 2,
        bogosize: 234,
        total_amount_sat: 10_000_000_000,
    },
    Answer {
        height: 9,
        hash: "000000008d9dc510f23c2657fc4f67bea30078cc05a90eb89e84cc475c080805",
        muhash: "a9c5896f35c8b97a2430dd47891767aea729070263ee526bf77636c869b95fbc",
        hash_serialized_3: "7d6bc9a5866bdd81ac050381c6dac699c913d9699f724e6ee57101b746ce13a7",
        snapshot_sha256: "419b08a854cef18eea85b13921b1fa3f8e36e117c27ccdf00097443568d7e76b",
        txouts: 9,
        transactions: 9,
        bogosize: 1_053,
        total_amount_sat: 45_000_000_000,
    },
    Answer {
        height: 170,
        hash: "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee",
        muhash: "b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30",
        hash_serialized_3: "7105b60f83d299f471759ec2c7900a2f15b61573b94dea3c94060e925fcf1417",
        snapshot_sha256: "d817cec6ea19774571e55d03294d0cbb81be8357a097993edf25801e908310e2",
        txouts: 171,
        transactions: 170,
        bogosize: 20_007,
        total_amount_sat: 850_000_000_000,
    },
    Answer {
        height: 255,
        hash: "00000000d0a75c861fabf9ff7b92022f60e4afeed9331fe5aa073d8e4706fe3c",
        muhash: "60e29020ee287387a5b311fa9d665e232d41fb14f6243342cf1bdd967cc82117",
        hash_serialized_3: "507108bd18e2319f0a7102cfa1c7ffea10c9b1a47ff061d8098bc51a92e40241",
        snapshot_sha256: "a785f8a9f467a1042fb597373e32df09f59c2942b83d01b963012ec84edf550a",
        txouts: 260,
        transactions: 259,
        bogosize: 30_420,
        total_amount_sat: 1_275_000_000_000,
    },
    Answer {
        height: 256,
        hash: "0000000092b1d848c608c64f9f764623432855007593e596258bb40daffa8fe7",
        muhash: "289c56ac34c4f3e404adbd1b7bc69d78c13a03f2fd4e121cd1bc032cb8262fae",
        hash_serialized_3: "e0e1a6adc27091e52654b012d0423b79689b3ceb0ab316eda95749ff0ea0febf",
        snapshot_sha256: "eec32046c49d4dc4a620d71a866d67f0408675aa4f4241e69fe93338b50efca2",
        txouts: 261,
        transactions: 260,
        bogosize: 30_537,
        total_amount_sat: 1_280_000_000_000,
    },
    Answer {
        height: 299,
        hash: "00000000b9b003c04b2fe21b4f7a2fa809eb643852573c3a1748653e2019f01c",
        muhash: "7672309f6cc0079fdd112e00e51bf75e0217d1532480693fc7c6398701cd0fad",
        hash_serialized_3: "f05af32a99db57ec0598117e224adfd36855fd52c94d1b83ff73261804cc9bfd",
        snapshot_sha256: "69b4ee9b92c300d01ffd4430b3377cf8a7624d15cd731ec2e7f06ca4b4f2e36b",
        txouts: 304,
        transactions: 303,
        bogosize: 35_568,
        total_amount_sat: 1_495_000_000_000,
    },
    Answer {
        height: 599,
        hash: "0000000042844571bc6bce8e1c0fbec99466971eaff89fef8c0d123582181d4d",
        muhash: "ce93177ecb5987744529c6e484b895dea4e4b1d062aef2230583f3f32acc4f8d",
        hash_serialized_3: "6b1d7ce40dba4aac9c4d4342c1482f516885b50a6c60c814d82eefc73c9ad8a6",
        snapshot_sha256: "3c9ea5dec684a1304fc4abd19e5d2e718dc1ae2931d126bfa54716d44931bffa",
        txouts: 601,
        transactions: 599,
        bogosize: 70_317,
        total_amount_sat: 2_995_000_000_000,
    },
];

/// Bytes as Bitcoin Core prints a hash: reversed.
pub fn reversed_hex(bytes: &[u8; 32]) -> String {
    bytes
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Answer {
    /// Fails where a store's figures differ.
    #[track_caller]
    pub fn check(&self, statistics: &SetStatistics) {
        let height = self.height;
        let tip = statistics.tip.expect("the store is connected");
        assert_eq!(
            (tip.height, tip.hash.to_string()),
            (height, self.hash.to_owned())
        );
        assert_eq!(statistics.txouts, self.txouts, "coins at height {height}");
        assert_eq!(
            statistics.transactions, self.transactions,
            "transactions at height {height}"
        );
        assert_eq!(statistics.bogosize, self.bogosize, "at height {height}");
        assert_eq!(
            statistics.total_amount_sat, self.total_amount_sat,
            "satoshis at height {height}"
        );
        for (name, digest, known) in [
            ("muhash", statistics.muhash, self.muhash),
            (
                "hash_serialized_3",
                statistics.hash_serialized_3,
                self.hash_serialized_3,
            ),
        ] {
            if let Some(digest) = digest {
                assert_eq!(reversed_hex(&digest), known, "{name} at height {height}");
            }
        }
    }
}

/// The files, as `BlockFiles` wants them. Removed on drop.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("groundtackle-utxo-store-testkit-{}-{number}", process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("room for a temporary folder");
        for (name, bytes) in [
            (
                "blk00000.dat",
                include_bytes!("../data/mainnet-0-599/blk00000.dat").as_slice(),
            ),
            (
                "blk00001.dat",
                include_bytes!("../data/mainnet-0-599/blk00001.dat").as_slice(),
            ),
        ] {
            fs::write(folder.join(name), bytes).expect("room for 140 KB");
        }
        Self(folder)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A test that failed before matters more than what it leaves in a temporary folder.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Blocks 0 to 599.
///
/// # Panics
/// When there is no room for temporary files.
pub async fn blocks() -> Vec<ChainBlock> {
    let files = Files::new();
    let config = BlockFilesConfig::new(Network::Main);
    let source = BlockFiles::open(vec![files.0.clone()], config).await;
    let mut source = source.expect("the files are good");
    let mut blocks = Vec::new();
    while let Some(block) = source.next_block().await.expect("the files are good") {
        blocks.push(block);
    }
    assert_eq!(blocks.len(), 600);
    blocks
}
