//! Drills of real blocks: into nothing but a digest, and into scratch stores.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use groundtackle_backup::{
    BackUp, Content, DataKey, Drill, DrillChoice, DrillGround, DrillLevel, Evidence, Hex, HexBytes,
    KeyUnwrapping, KeyWrapping, Manifest, MemoryTarget, PutIf, Repository, Result, SetSummary,
    SigningKey, SystemClock, SystemEntropy, Target, WrappedKey,
};
use groundtackle_backup_utxo::{DigestGround, Journal, Journaled, SetBackup, StoreGround};
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore, ScanStore, SetDigest, UtxoStore};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

/// Keys in the clear: what wrapping does is another crate's matter.
#[derive(Debug)]
struct Open;

impl KeyWrapping for Open {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "none".into(),
            recipients: Vec::new(),
            blob: HexBytes(key.expose().to_vec()),
        })
    }
}

impl KeyUnwrapping for Open {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let key = wrapped.blob.0.clone().try_into().unwrap();
        Ok(Some(DataKey::from_bytes(key)))
    }
}

struct Backups {
    target: MemoryTarget,
    repository: Repository,
    signer: SigningKey,
    digests: BTreeMap<u32, SetDigest>,
}

impl Backups {
    /// Blocks 0 to 599: two bases, and deltas between.
    async fn new() -> Self {
        let target = MemoryTarget::new();
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let shared = Arc::new(target.clone());
        let repository = Repository::init(shared, "main", &signer, clock, entropy)
            .await
            .unwrap();
        let folder = TempDir::new().unwrap();
        let store = Journaled::open(MemoryUtxoStore::new(), folder.path()).await;
        let store = Arc::new(store.unwrap());
        let journal = Journal::open(folder.path()).unwrap();
        let backup = SetBackup::new(store.clone(), Some(journal));
        let how = BackUp {
            stream: "set",
            wrapping: &Open,
            signer: &signer,
            workers: 2,
        };
        let mut digests = BTreeMap::new();
        for block in mainnet::blocks().await {
            store.connect_block(&block).await.unwrap().unwrap();
            digests.insert(block.height, store.digest().await.unwrap());
            match block.height {
                100 | 599 => drop(backup.back_up(&repository, &how).await.unwrap()),
                300 => drop(backup.back_up_base(&repository, &how).await.unwrap()),
                height if height > 100 && height % 83 == 0 => {
                    backup.back_up(&repository, &how).await.unwrap();
                }
                _ => {}
            }
        }
        Self {
            target,
            repository,
            signer,
            digests,
        }
    }

    async fn drill(
        &self,
        level: DrillLevel,
        choice: DrillChoice,
        ground: &mut dyn DrillGround,
    ) -> Evidence {
        let drill = Drill {
            level,
            choice,
            keys: Some(&Open),
            ground: Some(ground),
            ..Drill::new("set", &self.signer)
        };
        self.repository.drill(drill).await.unwrap().evidence
    }

    fn assert_passed(&self, evidence: &Evidence) {
        assert!(evidence.passed(), "{evidence:?}");
        let restored = evidence.drill.restored.unwrap();
        let known = self.digests[&restored.position.height];
        assert_eq!(restored.set.muhash, Hex(known.muhash));
        let hash = known.tip.unwrap().hash;
        assert_eq!(restored.position.hash, Hex(*hash.as_bytes()));
    }

    async fn points(&self) -> Vec<Manifest> {
        self.repository.points().await.unwrap().usable
    }

    async fn put(&self, key: &groundtackle_backup::ObjectKey, body: Vec<u8>) {
        self.target.remove(key).await.unwrap().unwrap();
        let put = self.target.put(key, body.into(), &PutIf::Absent, None);
        put.await.unwrap().unwrap();
    }
}

#[track_caller]
fn says(evidence: &Evidence, word: &str) {
    let reasons = evidence.drill.reasons.join("\n");
    assert!(!evidence.passed() && reasons.contains(word), "{evidence:?}");
}

/// The digest alone is that of the store at each height, forwards and backwards from a base.
#[tokio::test(flavor = "multi_thread")]
async fn any_height_is_replayed_without_a_store() {
    let backups = Backups::new().await;
    let mut heights = Vec::new();
    for height in [100, 101, 166, 299, 300, 301, 302, 450, 598, 599] {
        let choice = DrillChoice::Height(height);
        let evidence = backups
            .drill(DrillLevel::Replay, choice, &mut DigestGround)
            .await;
        backups.assert_passed(&evidence);
        heights.push(evidence.drill.chosen.unwrap().position.height);
    }
    assert_eq!(heights[9], 599);
    let choices = [
        DrillChoice::Latest,
        DrillChoice::Oldest,
        DrillChoice::Random,
    ];
    for choice in choices.into_iter().chain([DrillChoice::RandomHeight; 20]) {
        let evidence = backups
            .drill(DrillLevel::Replay, choice, &mut DigestGround)
            .await;
        backups.assert_passed(&evidence);
        assert_eq!(evidence.drill.place, None);
    }
    // It is good for no more than it does.
    let evidence = backups
        .drill(DrillLevel::Load, DrillChoice::Latest, &mut DigestGround)
        .await;
    says(&evidence, "level replay at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_store_is_filled_and_asked() {
    let backups = Backups::new().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("scratch");
    let config = EmbeddedUtxoStoreConfig::default();
    let embedded: Arc<dyn UtxoStore> = Arc::new(EmbeddedUtxoStore::open(path, config).unwrap());
    let memory: Arc<dyn UtxoStore> = Arc::new(MemoryUtxoStore::new());
    for store in [embedded, memory] {
        let mut ground = StoreGround::new(store.clone(), "scratch");
        let at = DrillChoice::Height(400);
        let evidence = backups.drill(DrillLevel::Load, at, &mut ground).await;
        backups.assert_passed(&evidence);
        assert_eq!(evidence.drill.place.as_deref(), Some("scratch"));
        let proofs = &evidence.drill.proofs;
        assert!(
            proofs.iter().any(|proof| proof.found == "400"),
            "{proofs:?}"
        );
        assert!(
            proofs.iter().any(|proof| proof.found == "100"),
            "{proofs:?}"
        );
        let tip = store.tip().await.unwrap();
        assert_eq!(tip, backups.digests[&400].tip);
        // Once: another drill proves nothing there.
        let again = backups.drill(DrillLevel::Load, at, &mut ground).await;
        says(&again, "not empty");
        assert_eq!(store.tip().await.unwrap(), tip);
        let serve = backups.drill(DrillLevel::Serve, at, &mut ground).await;
        says(&serve, "level load at most");
    }
}

/// A manifest that its signer computed wrongly, and a damaged pack: what the store holds then is no store.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_wrong_fails() {
    let backups = Backups::new().await;
    let mut last = backups.points().await.pop().unwrap();
    let right = last.sign(&backups.signer).unwrap();
    let object = last.object().unwrap();
    let Content::Delta { blocks, .. } = &mut last.content else {
        panic!("{last:?}");
    };
    let SetSummary { muhash, .. } = &mut blocks.last_mut().unwrap().set;
    muhash.0[0] ^= 1;
    let wrong = last.sign(&backups.signer).unwrap();
    backups.put(&object, wrong).await;
    let latest = DrillChoice::Latest;
    let evidence = backups
        .drill(DrillLevel::Replay, latest, &mut DigestGround)
        .await;
    says(&evidence, "MuHash");
    assert_eq!(evidence.drill.restored, None);
    let scratch: Arc<dyn UtxoStore> = Arc::new(MemoryUtxoStore::new());
    let mut ground = StoreGround::new(scratch.clone(), "scratch");
    let evidence = backups.drill(DrillLevel::Load, latest, &mut ground).await;
    says(&evidence, "differs");
    assert_eq!(scratch.tip().await.unwrap(), None);
    // What it left is not gone on with.
    backups.put(&object, right).await;
    let evidence = backups.drill(DrillLevel::Load, latest, &mut ground).await;
    says(&evidence, "unfinished copy");
    let passes = backups
        .drill(DrillLevel::Replay, latest, &mut DigestGround)
        .await;
    backups.assert_passed(&passes);

    let packs = backups.target.list("packs/", None, 100).await.unwrap();
    for pack in packs.objects {
        let body = backups.target.read(&pack.key, 0..pack.bytes).await;
        let body = body.unwrap().unwrap();
        let mut damaged = body.to_vec();
        damaged[20] ^= 1;
        backups.put(&pack.key, damaged).await;
        let evidence = backups
            .drill(DrillLevel::Bytes, DrillChoice::Oldest, &mut DigestGround)
            .await;
        let needed = evidence
            .drill
            .reasons
            .iter()
            .any(|reason| reason.contains(pack.key.as_str()));
        let replayed = backups
            .drill(DrillLevel::Replay, DrillChoice::Oldest, &mut DigestGround)
            .await;
        assert_eq!(replayed.passed(), !needed);
        backups.put(&pack.key, body.to_vec()).await;
    }
    let found = backups.repository.evidence().await.unwrap();
    assert!(found.unusable.is_empty());
    let failed = found.usable.iter().filter(|evidence| !evidence.passed());
    assert_eq!(failed.count(), 5);
}
