use std::sync::atomic::{AtomicI64, AtomicUsize};

use aerospike::policy::AuthMode;
use aerospike::{
    BatchOperation, BatchPolicy, BatchReadPolicy, BatchWritePolicy, Bin, Bins, Client,
    ClientPolicy, Expiration, Host, RecordExistsAction, ResultCode, Value,
};
use groundtackle_utxo_store::pending::{PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::{Error, Result, UnspendableRule};

use crate::cells::{AerospikeCells, millis, newest};
use crate::config::AerospikeUtxoStoreConfig;
use crate::error::{corrupt, failed};
use crate::throttle::Throttle;

/// The newest format that this version reads.
const FORMAT: i64 = 1;

const FORMAT_BIN: &str = "format";
const RULE_BIN: &str = "rule";

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
    /// `InvalidRequest` for settings that make no sense, for a namespace that is not there or keeps too few
    /// copies, and for a store of another `unspendable` rule; `NewerFormat`; `NotFound` unless it may be
    /// created; `Backend` where no node can be reached, or user and password are refused.
    pub async fn open(config: AerospikeUtxoStoreConfig) -> Result<Self> {
        let place = config.check()?;
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
        let cells = AerospikeCells {
            client,
            namespace: place.namespace,
            set: place.set,
            answer_timeout: config.answer_timeout,
            min_replicas: config.min_replicas,
            throttle: Throttle::new(most),
            unmined_stretch: AtomicI64::new(i64::MAX),
            scan_stretch: AtomicUsize::new(usize::MAX),
        };
        cells.check_settings().await?;
        cells.settle(&config).await?;
        // The nodes agree on an index, which can take longer than one of them waits.
        let mut schedule = config.retry.schedule();
        while let Err(error) = cells.make_indexes().await {
            let again = error.retryability().allows_retry(true);
            let Some(delay) = schedule.next_delay().filter(|_| again) else {
                return Err(error);
            };
            tokio::time::sleep(delay).await;
        }
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

impl AerospikeCells {
    /// Makes sure that the store is there, and is what the config says.
    async fn settle(&self, config: &AerospikeUtxoStoreConfig) -> Result<()> {
        let action = "open the store";
        let Some(rule) = rule_name(config.unspendable) else {
            return Err(Error::invalid_request(
                "this version does not know the `unspendable` rule asked for",
            ));
        };
        // No cell has a key like this.
        let key = self.record_key(b"settings".to_vec())?;
        let mut policy = BatchPolicy::default();
        newest(&mut policy.base_policy);
        policy.base_policy.total_timeout = millis(self.answer_timeout);
        for create in [true, false] {
            let read = BatchReadPolicy::default();
            let mut rows = [BatchOperation::read(&read, key.clone(), Bins::All)];
            let done = self.client.batch(&policy, &mut rows).await;
            done.map_err(|error| failed(action, error))?;
            let [row] = rows;
            let row = row.into_batch_record();
            if let (Some(ResultCode::Ok), Some(record)) = (row.result_code(), &row.record) {
                return match (record.bins.get(FORMAT_BIN), record.bins.get(RULE_BIN)) {
                    (Some(Value::Int(found)), _) if *found > FORMAT => Err(Error::NewerFormat {
                        store: self.name(),
                        found: u32::try_from(*found).unwrap_or(u32::MAX),
                        supported: 1,
                    }),
                    (Some(Value::Int(_)), Some(Value::String(found))) if found == rule => Ok(()),
                    (Some(Value::Int(_)), Some(Value::String(found))) => {
                        Err(Error::invalid_request(format!(
                            "{} was created with `unspendable` {found}, and is opened with {rule}",
                            self.name()
                        )))
                    }
                    _ => Err(corrupt("the store's settings", "they are none")),
                };
            }
            if row.result_code() != Some(ResultCode::KeyNotFoundError) {
                let error = row.error().map(ToString::to_string).unwrap_or_default();
                return Err(Error::backend(
                    crate::error::BACKEND,
                    action,
                    groundtackle_utxo_store::Retryability::Transient,
                    error,
                ));
            }
            if !config.create || !create {
                return Err(Error::NotFound { store: self.name() });
            }
            let write = BatchWritePolicy {
                record_exists_action: RecordExistsAction::CreateOnly,
                expiration: Expiration::Never,
                ..BatchWritePolicy::default()
            };
            let put = |name, value| aerospike::operations::put(&Bin::new(name, value));
            let bins = vec![
                put(FORMAT_BIN, Value::Int(FORMAT)),
                put(RULE_BIN, Value::String(rule.to_owned())),
            ];
            let mut rows = [BatchOperation::write(&write, key.clone(), bins)];
            let done = self.client.batch(&policy, &mut rows).await;
            done.map_err(|error| failed(action, error))?;
            // Another process may have been faster: its settings count, and are read now.
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("namespace {}, set {}", self.namespace, self.set)
    }
}

macro_rules! forward {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

groundtackle_utxo_store::forward_store!([] AerospikeUtxoStore, inner, forward);
