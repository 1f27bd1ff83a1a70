//! Connections, and transactions on them.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use futures_util::FutureExt;
use groundtackle_utxo_store::{Error, Result};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, NoTls};

use crate::config::{PostgresUtxoStoreConfig, Tls};
use crate::error::{Again, BACKEND, Failed, failed, no_answer};
use crate::statements::Statements;
use crate::tls::Verified;

/// How to reach the server.
#[derive(Clone)]
pub(crate) struct Server {
    config: tokio_postgres::Config,
    tls: Option<Verified>,
    setup: String,
    answer_timeout: Duration,
}

/// One connection, on which everything is prepared.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) statements: Statements,
    cancel: CancelToken,
    /// Under which the connection numbers its calls.
    pub(crate) id: [u8; 16],
    pub(crate) calls: i64,
}

pub(crate) struct Sessions(Server);

pub(crate) type SessionPool = Pool<Sessions>;

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Server {
    pub(crate) fn new(config: &PostgresUtxoStoreConfig) -> Result<Self> {
        // The parser's own words could have a part of the password.
        let mut server: tokio_postgres::Config = config.url.expose().parse().map_err(|_| {
            Error::invalid_request(
                "the URL can't be read; write postgres://user:password@host:5432/database, with special characters of the password as %XX",
            )
        })?;
        if server.get_hosts().is_empty() && server.get_hostaddrs().is_empty() {
            return Err(Error::invalid_request(
                "the URL names no host; write postgres://user:password@host:5432/database",
            ));
        }
        if let Some(password) = &config.password {
            server.password(password.expose());
        }
        if server.get_application_name().is_none() {
            server.application_name("groundtackle");
        }
        server.connect_timeout(config.connect_timeout);
        server.tcp_user_timeout(config.answer_timeout);
        server.keepalives_idle(Duration::from_secs(30));
        let tls = match config.tls {
            Tls::Off => {
                server.ssl_mode(SslMode::Disable);
                None
            }
            Tls::Verify => {
                server.ssl_mode(SslMode::Require);
                Some(Verified::new(config.tls_authorities.as_deref())?)
            }
        };
        let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        // One row at a time by index is what all statements are made for, whatever the statistics of a
        // young table say; and plans that don't change.
        let setup = format!(
            "SET search_path TO \"{}\"; SET statement_timeout = {}; SET lock_timeout = {}; \
             SET idle_in_transaction_session_timeout = {}; SET default_transaction_isolation = 'read committed'; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET enable_memoize = off; SET plan_cache_mode = force_generic_plan; SET jit = off; \
             SET client_min_messages = warning; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            config.schema,
            millis(config.statement_timeout),
            millis(config.lock_timeout),
            millis(config.answer_timeout),
        );
        Ok(Self {
            config: server,
            tls,
            setup,
            answer_timeout: config.answer_timeout,
        })
    }

    /// A connection on which nothing is prepared.
    pub(crate) async fn connect(&self) -> Result<Client, Failed> {
        let action = "connect to the server";
        let client = match &self.tls {
            None => {
                let (client, connection) = self
                    .config
                    .connect(NoTls)
                    .await
                    .map_err(|e| failed(action, e))?;
                drive(connection);
                client
            }
            Some(tls) => {
                let (client, connection) = self
                    .config
                    .connect(tls.clone())
                    .await
                    .map_err(|e| failed("connect to the server by TLS (a server without it: `tls` off; one of an own authority: `tls_authorities`)", e))?;
                drive(connection);
                client
            }
        };
        self.answer(action, client.batch_execute(&self.setup))
            .await?;
        Ok(client)
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn answer<T>(
        &self,
        action: &str,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failed> {
        match tokio::time::timeout(self.answer_timeout, call).await {
            Ok(answer) => answer.map_err(|error| failed(action, error)),
            Err(_) => Err(no_answer(action)),
        }
    }

    /// Stops what a connection that nobody waits for any more is doing, so that its locks go.
    async fn cancel(&self, token: CancelToken) {
        let cancelled = async {
            match &self.tls {
                None => token.cancel_query(NoTls).await,
                Some(tls) => token.cancel_query(tls.clone()).await,
            }
        };
        if tokio::time::timeout(self.answer_timeout, cancelled)
            .await
            .is_err()
        {
            tracing::debug!("the server did not take a cancellation");
        }
    }

    pub(crate) fn pool(&self, config: &PostgresUtxoStoreConfig) -> Result<SessionPool> {
        Pool::builder(Sessions(self.clone()))
            .max_size(config.max_connections.max(2))
            .wait_timeout(Some(config.pool_timeout))
            .create_timeout(Some(config.answer_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::invalid_request(format!("the pool: {error}")))
    }
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // Whoever waits for an answer is told of the error as well.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
}

impl Manager for Sessions {
    type Type = Session;
    type Error = Failed;

    async fn create(&self) -> Result<Session, Failed> {
        let client = self.0.connect().await?;
        let prepare = Statements::prepare(&client);
        let statements = match tokio::time::timeout(self.0.answer_timeout, prepare).await {
            Ok(statements) => statements?,
            Err(_) => return Err(no_answer("prepare statements")),
        };
        let random = || RandomState::new().hash_one(std::time::SystemTime::now());
        let mut id = [0; 16];
        let (head, tail) = id.split_at_mut(8);
        head.copy_from_slice(&random().to_be_bytes());
        tail.copy_from_slice(&random().to_be_bytes());
        Ok(Session {
            cancel: client.cancel_token(),
            client,
            statements,
            id,
            calls: 0,
        })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<Failed> {
        if session.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

pub(crate) fn pool_error(action: &str, error: PoolError<Failed>) -> Failed {
    match error {
        PoolError::Backend(failed) => failed,
        PoolError::Timeout(deadpool::managed::TimeoutType::Wait) => Failed {
            error: Error::overloaded(
                BACKEND,
                format!("{action} (all connections of the pool are in use)"),
            ),
            again: Again::No,
        },
        PoolError::Timeout(_) => no_answer(action),
        _ => Error::backend(
            BACKEND,
            action,
            groundtackle_utxo_store::Retryability::Transient,
            "the pool of connections is closed",
        )
        .into(),
    }
}

/// A connection in use. Dropped in the middle of something it is not used again, and the server told
/// to stop.
pub(crate) struct Lease {
    object: Option<Object<Sessions>>,
    server: Arc<Server>,
    busy: bool,
}

impl Lease {
    pub(crate) async fn of(
        pool: &SessionPool,
        server: &Arc<Server>,
        action: &str,
    ) -> Result<Self, Failed> {
        let object = pool
            .get()
            .await
            .map_err(|error| pool_error(action, error))?;
        Ok(Self {
            object: Some(object),
            server: server.clone(),
            busy: false,
        })
    }

    pub(crate) fn session(&self) -> Result<&Session, Failed> {
        // It is there until it is dropped.
        self.object
            .as_deref()
            .ok_or_else(|| no_answer("use a connection"))
    }

    /// The connection's name and the number of its next call that changes something.
    pub(crate) fn number_call(&mut self) -> Option<([u8; 16], i64)> {
        let session = self.object.as_deref_mut()?;
        session.calls += 1;
        Some((session.id, session.calls))
    }

    /// From here on the connection is in a transaction, or an answer is awaited. Says whether it was at
    /// rest.
    pub(crate) const fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// The connection is at rest.
    pub(crate) const fn end(&mut self) {
        self.busy = false;
    }

    pub(crate) async fn answer<T>(
        &self,
        action: &str,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failed> {
        self.server.answer(action, call).await
    }

    /// As [`rollback`](Self::rollback) where nobody can wait: whoever has the connection next comes after it.
    pub(crate) fn roll_back_later(&mut self) {
        let sent = self
            .session()
            .map(|session| session.client.batch_execute("ROLLBACK").now_or_never());
        if !matches!(sent, Ok(Some(Err(_))) | Err(_)) {
            self.end();
        }
    }

    /// Never uses the connection again, and tells the server to stop what it does on it.
    pub(crate) fn discard(&mut self) {
        let Some(session) = self.object.take().map(Object::take) else {
            return;
        };
        let server = self.server.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                server.cancel(session.cancel.clone()).await;
                drop(session);
            });
        }
    }

    /// Gives up what is under way and puts the connection back.
    pub(crate) async fn rollback(&mut self, action: &str) -> Result<(), Failed> {
        self.begin();
        let client = &self.session()?.client;
        self.answer(action, client.batch_execute("ROLLBACK"))
            .await?;
        self.end();
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.busy {
            self.discard();
        }
    }
}
