//! The kinds of checks that a config may name.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::Meter;
use groundtackle_backup_s3::S3TargetConfig;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_aerospike::{AerospikeCheck, AerospikeCheckConfig};
use groundtackle_health_check_backup::{BackupCheck, BackupCheckConfig, TipHeight};
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe};
use groundtackle_health_check_ethereum::{
    EthereumAccountCheck, EthereumAccountProbe, EthereumCheck, EthereumProbe,
};
use groundtackle_health_check_postgres::{PostgresCheck, PostgresCheckConfig};
use groundtackle_health_check_probes::{
    ClockProbe, CommandProbe, DiskProbe, DnsProbe, HttpProbe, Probe as Plain, ProbeCheck, TcpProbe,
    TlsProbe,
};
use groundtackle_health_check_redis::{RedisCheck, RedisCheckConfig};
use groundtackle_health_check_s3::{S3Check, S3CheckConfig};
use groundtackle_health_check_utxo_store::{UtxoStoreCheck, UtxoStoreCheckConfig};
use groundtackle_utxo_store::UtxoStore;
use serde::{Deserialize, Deserializer};
use tokio::sync::OnceCell;

use crate::failure::Failure;
use crate::places::{self, Copies, For, PlaceConfig};
use crate::stores::{self, Missing, StoreUrl};

/// What a check looks at: `probe = { tcp = { … } }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    Tcp(TcpProbe),
    Http(HttpProbe),
    Tls(TlsProbe),
    Dns(DnsProbe),
    Disk(DiskProbe),
    Clock(ClockProbe),
    Command(CommandProbe),
    UtxoStore(StoreProbe),
    Postgres(PostgresCheckConfig),
    Redis(RedisCheckConfig),
    S3(S3CheckConfig),
    Aerospike(AerospikeCheckConfig),
    Backup(Box<BackupProbe>),
    Bitcoin(BitcoinProbe),
    Ethereum(EthereumProbe),
    EthereumAccount(EthereumAccountProbe),
}

/// A UTXO store, and what is right for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreProbe {
    #[serde(deserialize_with = "url")]
    url: StoreUrl,
    #[serde(default)]
    expect: UtxoStoreCheckConfig,
}

/// A repository of backups, by where it lies, and what is right for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupProbe {
    #[serde(default)]
    folder: Option<PathBuf>,
    #[serde(default)]
    s3: Option<S3TargetConfig>,
    #[serde(default)]
    target: Vec<PlaceConfig>,
    /// The store whose tip limits in blocks are about.
    #[serde(default, deserialize_with = "some_url")]
    tip_of: Option<StoreUrl>,
    expect: BackupCheckConfig,
}

fn url<'de, D: Deserializer<'de>>(text: D) -> Result<StoreUrl, D::Error> {
    String::deserialize(text)?
        .parse()
        .map_err(serde::de::Error::custom)
}

fn some_url<'de, D: Deserializer<'de>>(text: D) -> Result<Option<StoreUrl>, D::Error> {
    url(text).map(Some)
}

impl Probe {
    pub fn into_check(self) -> AnyCheck {
        fn check(check: impl Check) -> AnyCheck {
            AnyCheck(Box::new(check))
        }
        let plain = |probe: Plain| check(ProbeCheck::from(probe));
        match self {
            Self::Tcp(probe) => plain(Plain::Tcp(probe)),
            Self::Http(probe) => plain(Plain::Http(probe)),
            Self::Tls(probe) => plain(Plain::Tls(probe)),
            Self::Dns(probe) => plain(Plain::Dns(probe)),
            Self::Disk(probe) => plain(Plain::Disk(probe)),
            Self::Clock(probe) => plain(Plain::Clock(probe)),
            Self::Command(probe) => plain(Plain::Command(probe)),
            Self::UtxoStore(probe) => check(StoreCheck {
                probe,
                check: OnceCell::new(),
            }),
            Self::Postgres(config) => check(PostgresCheck::from(config)),
            Self::Redis(config) => check(RedisCheck::from(config)),
            Self::S3(config) => check(S3Check::from(config)),
            Self::Aerospike(config) => check(AerospikeCheck::from(config)),
            Self::Backup(probe) => check(RepositoryCheck {
                probe,
                check: OnceCell::new(),
            }),
            Self::Bitcoin(probe) => check(BitcoinCheck::from(probe)),
            Self::Ethereum(probe) => check(EthereumCheck::from(probe)),
            Self::EthereumAccount(probe) => check(EthereumAccountCheck::from(probe)),
        }
    }
}

#[derive(Debug)]
pub struct AnyCheck(Box<dyn Check>);

#[async_trait]
impl Check for AnyCheck {
    async fn check(&self) -> Observation {
        self.0.check().await
    }
}

/// Opens the store when it is first looked at, and again until that works: what serves the checks must not wait for it.
#[derive(Debug)]
struct StoreCheck {
    probe: StoreProbe,
    check: OnceCell<UtxoStoreCheck<Arc<dyn UtxoStore>>>,
}

#[async_trait]
impl Check for StoreCheck {
    async fn check(&self) -> Observation {
        let open = || async {
            let store = stores::open(&self.probe.url, Missing::Refuse).await?;
            let check = UtxoStoreCheck::new(store, self.probe.expect.clone());
            Ok::<_, Failure>(check)
        };
        match self.check.get_or_try_init(open).await {
            Ok(check) => check.check().await,
            Err(failure) => not_open("store-not-open", &failure),
        }
    }
}

fn not_open(cause: &'static str, failure: &Failure) -> Observation {
    let because = failure.source().map(|source| format!(": {source}"));
    let detail = format!("{failure}{}", because.unwrap_or_default());
    Observation::fail(cause).with_detail(detail)
}

/// Opens the places of a repository in the same way.
#[derive(Debug)]
struct RepositoryCheck {
    probe: Box<BackupProbe>,
    check: OnceCell<BackupCheck>,
}

#[async_trait]
impl Check for RepositoryCheck {
    async fn check(&self) -> Observation {
        let open = || async {
            let probe = &self.probe;
            let target = match probe.target.as_slice() {
                [] => places::one(probe.folder.as_deref(), probe.s3.as_ref(), false).await?,
                several => {
                    let copies = Copies::default();
                    places::several(several, copies, For::Reading, false, &Meter::new()).await?
                }
            };
            let check = BackupCheck::new(target, probe.expect.clone());
            Ok::<_, Failure>(match &probe.tip_of {
                Some(url) => check.with_tip(Arc::new(StoreTip {
                    url: url.clone(),
                    store: OnceCell::new(),
                })),
                None => check,
            })
        };
        match self.check.get_or_try_init(open).await {
            Ok(check) => check.check().await,
            Err(failure) => not_open("target-not-open", &failure),
        }
    }
}

/// Opened when it is first needed, too.
#[derive(Debug)]
struct StoreTip {
    url: StoreUrl,
    store: OnceCell<Arc<dyn UtxoStore>>,
}

#[async_trait]
impl TipHeight for StoreTip {
    async fn tip_height(&self) -> Result<u32, Box<dyn StdError + Send + Sync>> {
        let open = || stores::open(&self.url, Missing::Refuse);
        let tip = self.store.get_or_try_init(open).await?.tip().await?;
        Ok(tip.ok_or("the store has no block")?.height)
    }
}
