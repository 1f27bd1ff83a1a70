use std::sync::atomic::{AtomicI64, AtomicUsize};

use aerospike::policy::AuthMode;
use aerospike::{
    BatchOperation, BatchReadPolicy, BatchWritePolicy, Bin, Bins, Client, ClientPolicy, Expiration,
    Host, Key, RecordExistsAction, Value,
};
use groundtackle_utxo_store::pending::{PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::{Error, Result, Retryability, UnspendableRule};

use crate::cells::{AerospikeCells, Row, millis, update};
use crate::config::AerospikeUtxoStoreConfig;
use crate::error::{BACKEND, corrupt, failed};
use crate::sentinel::Sentinels;
use crate::server::lost_partitions;
use crate::throttle::Throttle;

/// The newest format that this version reads.
const FORMAT: i64 = 1;

const FORMAT_BIN: &str = "format";
const RULE_BIN: &str = "rule";
const READY_BIN: &str = "ready";

/// Looks at the settings in which a store is created, some to spare for other processes that do the same.
const CREATION_STEPS: usize = 6;

const CLIENT_CONFIG: &str = "AEROSPIKE_CLIENT_CONFIG_URL";

/// A UTXO store in an Aerospike cluster. Clones share the connections.
#[derive(Clone, Debug)]
pub struct AerospikeUtxoStore {
    pending: PendingUtxoStore<AerospikeCells>,
}

const fn rule_name(rule: UnspendableRule) -> Option<&'static str> {
    match rule {
        UnspendableRule::Core => Some("core"),
        UnspendableRule::FalseReturn => Some("false-return"),
        _ => None,
    }
}

impl AerospikeUtxoStore {
    /// Connects to the cluster, and opens the store of the URL's set, or creates it.
    ///
    /// Runs on tokio, on whose runtime the connections live.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that make no sense, for a namespace that is not there, keeps too few
    /// copies or is set up so that records can be lost, and for a store of another `unspendable` rule;
    /// `Corrupt` where a part of the store is not there; `NewerFormat`; `NotFound` unless it may be created;
    /// `Backend` where no node can be reached, or user and password are refused.
    pub async fn open(config: AerospikeUtxoStoreConfig) -> Result<Self> {
        let cells = AerospikeCells::connect(&config).await?;
        let mut pending = PendingConfig::default();
        pending.unspendable = config.unspendable;
        pending.max_batch_items = config.max_batch_items;
        pending.patience = config.patience;
        pending.retry = config.retry;
        Ok(Self {
            pending: PendingUtxoStore::new(cells, pending),
        })
    }

    const fn inner(&self) -> &PendingUtxoStore<AerospikeCells> {
        &self.pending
    }
}

/// What a store says of itself.
struct Settings {
    format: i64,
    rule: String,
    /// Whether all that belongs to an empty store has been written.
    ready: bool,
}

impl AerospikeCells {
    /// Connects to the cluster, and opens the store or creates it.
    pub(crate) async fn connect(config: &AerospikeUtxoStoreConfig) -> Result<Self> {
        let place = config.check()?;
        // The client would take retries and read modes from there, if any crate of the program asks for that.
        if std::env::var_os(CLIENT_CONFIG).is_some_and(|url| !url.is_empty()) {
            return Err(Error::invalid_request(format!(
                "{CLIENT_CONFIG} is set, with which others could change how the store's requests are sent: unset it for this process"
            )));
        }
        let hosts: Vec<_> = place
            .hosts
            .iter()
            .map(|(name, port)| Host::new(name, *port))
            .collect();
        // Twice the connections, so that no request waits for another's.
        let most = config.max_requests as usize;
        let mut policy = ClientPolicy {
            timeout: millis(config.connect_timeout),
            connect_timeout: millis(config.connect_timeout),
            max_conns_per_node: most.saturating_mul(2).max(64),
            ..ClientPolicy::default()
        };
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            policy.auth_mode = AuthMode::Internal(user.clone(), password.expose().to_owned());
        }
        let client = Client::new(&policy, &hosts).await;
        let client = client.map_err(|error| {
            // The client tells it as text only.
            if config.user.is_some() && error.to_string().contains("Security not") {
                return Error::invalid_request(
                    "the servers know no users: Community Edition has none; leave `user` and `password` out",
                );
            }
            failed("connect to the cluster", error)
        })?;
        let mut cells = Self {
            client,
            namespace: place.namespace,
            set: place.set,
            answer_timeout: config.answer_timeout,
            min_replicas: config.min_replicas,
            allow_split: config.allow_split,
            sentinels: Sentinels::default(),
            throttle: Throttle::new(most),
            unmined_stretch: AtomicI64::new(i64::MAX),
            scan_stretch: AtomicUsize::new(usize::MAX),
        };
        cells.sentinels = cells.find_sentinels()?;
        // Nodes may come and go, and agree on an index, which can take longer than one of them waits.
        let mut schedule = config.retry.schedule();
        while let Err(error) = cells.begin(config).await {
            let again = error.retryability().allows_retry(true);
            let Some(delay) = schedule.next_delay().filter(|_| again) else {
                return Err(error);
            };
            tokio::time::sleep(delay).await;
        }
        Ok(cells)
    }

    async fn begin(&self, config: &AerospikeUtxoStoreConfig) -> Result<()> {
        self.check_settings().await?;
        self.settle(config).await?;
        self.make_indexes().await
    }

    /// Makes sure that the store is there, whole, and is what the config says.
    ///
    /// A store is created in three steps, the settings, the sentinels, the word that all is there; who finds
    /// the first only goes on. So whatever else is there without settings is what is left of a store.
    async fn settle(&self, config: &AerospikeUtxoStoreConfig) -> Result<()> {
        let Some(rule) = rule_name(config.unspendable) else {
            return Err(Error::invalid_request(
                "this version does not know the `unspendable` rule asked for",
            ));
        };
        for _ in 0..CREATION_STEPS {
            let settings = self.settings().await?;
            if settings.as_ref().is_none_or(|settings| !settings.ready) && !config.create {
                return Err(Error::NotFound { store: self.name() });
            }
            let Some(settings) = settings else {
                // Another process may create the store meanwhile.
                if self.holds_anything().await? && self.settings().await?.is_none() {
                    return Err(corrupt(
                        self.name(),
                        "it holds records and no settings, so that a part of it is lost: build it anew, in an empty set",
                    ));
                }
                self.write_settings(rule, false).await?;
                continue;
            };
            if settings.format > FORMAT {
                return Err(Error::NewerFormat {
                    store: self.name(),
                    found: u32::try_from(settings.format).unwrap_or(u32::MAX),
                    supported: 1,
                });
            }
            if settings.rule != rule {
                return Err(Error::invalid_request(format!(
                    "{} was created with `unspendable` {}, and is opened with {rule}",
                    self.name(),
                    settings.rule
                )));
            }
            if settings.ready {
                return match self.lost_partitions().await? {
                    0 => Ok(()),
                    lost => Err(corrupt(self.name(), lost_partitions(lost))),
                };
            }
            self.write_sentinels().await?;
            self.write_settings(rule, true).await?;
        }
        Err(Error::backend(
            BACKEND,
            "create the store",
            Retryability::Transient,
            "its settings come and go",
        ))
    }

    /// No cell has a key like this.
    fn settings_key(&self) -> Result<Key> {
        self.record_key(b"settings".to_vec())
    }

    async fn settings(&self) -> Result<Option<Settings>> {
        let read = BatchReadPolicy::default();
        let row = BatchOperation::read(&read, self.settings_key()?, Bins::All);
        let rows = self.send("open the store", vec![(64, row)], false).await?;
        let record = match rows.into_iter().next() {
            Some(Row::Missing) => return Ok(None),
            Some(Row::Done(record)) => record,
            _ => None,
        };
        let bin = |name| record.as_ref().and_then(|record| record.bins.get(name));
        match (bin(FORMAT_BIN), bin(RULE_BIN)) {
            (Some(Value::Int(format)), Some(Value::String(rule))) => Ok(Some(Settings {
                format: *format,
                rule: rule.clone(),
                ready: bin(READY_BIN) == Some(&Value::Int(1)),
            })),
            _ => Err(corrupt("the store's settings", "they are none")),
        }
    }

    /// Creates the settings, unless another process was faster: then its settings count. Or says that
    /// the store is whole.
    async fn write_settings(&self, rule: &str, ready: bool) -> Result<()> {
        let put = |name, value| aerospike::operations::put(&Bin::new(name, value));
        let row = if ready {
            let mine = aerospike::expressions::bin_exists(FORMAT_BIN);
            let bins = vec![put(READY_BIN, Value::Int(1))];
            BatchOperation::write(&update(mine), self.settings_key()?, bins)
        } else {
            let policy = BatchWritePolicy {
                record_exists_action: RecordExistsAction::CreateOnly,
                expiration: Expiration::Never,
                ..BatchWritePolicy::default()
            };
            let bins = vec![
                put(FORMAT_BIN, Value::Int(FORMAT)),
                put(RULE_BIN, Value::String(rule.to_owned())),
            ];
            BatchOperation::write(&policy, self.settings_key()?, bins)
        };
        self.change("create the store", vec![(64, row)])
            .await
            .map(drop)
    }

    fn name(&self) -> String {
        format!("namespace {}, set {}", self.namespace, self.set)
    }
}

groundtackle_utxo_store::forward_store!([] AerospikeUtxoStore, inner);
