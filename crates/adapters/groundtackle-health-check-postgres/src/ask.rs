//! One connection, and what the server says on it.

use std::error::Error as StdError;

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check::Observation;
use groundtackle_health_check_client::{Endpoint, Error, Tls, Way, bounded, in_full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use crate::config::PostgresCheckConfig;
use crate::status::{STATEMENT, Status};

/// One row, and the greetings before it.
const MAX_ANSWERS: ByteSize = ByteSize::mib(1);

/// `SSLRequest` of the protocol: its length and code.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

const FORM: &str = "the URL can't be read; write postgres://user:password@host:5432/database, with one host, and with special characters of the password as %XX";

/// What a URL says. Nothing of it is repeated: a part of the password may be in it.
pub(crate) fn place(url: &Secret) -> Result<(Config, Endpoint), &'static str> {
    let mut config: Config = url.expose().parse().map_err(|_| FORM)?;
    let host = match (config.get_hosts(), config.get_hostaddrs()) {
        (_, [address]) => address.to_string(),
        ([Host::Tcp(host)], []) => host.clone(),
        _ => return Err(FORM),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let endpoint = Endpoint::of(&host, port).map_err(|_| FORM)?;
    // TLS is ours: the client gets a stream.
    config.ssl_mode(SslMode::Disable);
    if config.get_application_name().is_none() {
        config.application_name("groundtackle-health-check");
    }
    Ok((config, endpoint))
}

/// Connects, and asks.
pub(crate) async fn ask(way: &Way, config: &PostgresCheckConfig) -> Result<Status, Observation> {
    let seen = |error: Error| error.observation();
    let url = way.secret(&config.url).await.map_err(seen)?;
    let (mut login, endpoint) =
        place(&url).map_err(|why| Observation::fail("bad-url").with_detail(why))?;
    if let Some(password) = &config.password {
        login.password(way.secret(password).await.map_err(seen)?.expose());
    }
    let mut stream = way.connect(&endpoint).await.map_err(seen)?;
    match config.tls {
        Tls::Off => talk(stream, &login, &endpoint).await,
        _ => {
            offers_tls(&mut stream, &endpoint).await?;
            let stream = way.secure(stream, &endpoint).await;
            talk(stream.map_err(seen)?, &login, &endpoint).await
        }
    }
}

/// One byte is read, and no more: what follows must come by TLS.
async fn offers_tls(stream: &mut TcpStream, endpoint: &Endpoint) -> Result<(), Observation> {
    let asked = async {
        stream.write_all(&TLS_REQUEST).await?;
        stream.read_u8().await
    };
    match asked.await {
        Ok(b'S') => Ok(()),
        Ok(_) => Err(Observation::fail("tls-refused").with_detail(format!(
            "{endpoint}: the server has no TLS; set tls to off for a server on this machine or a network that nobody else listens to"
        ))),
        Err(error) => {
            Err(Observation::fail("no-answer").with_detail(format!("{endpoint}: {error}")))
        }
    }
}

/// The connection lives as long as this future.
async fn talk<S>(stream: S, login: &Config, endpoint: &Endpoint) -> Result<Status, Observation>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: tokio_postgres::Error| failed(endpoint, &error);
    let stream = bounded(stream, MAX_ANSWERS);
    let (client, connection) = login.connect_raw(stream, NoTls).await.map_err(failed)?;
    let rows = tokio::select! {
        biased;
        rows = client.simple_query(STATEMENT) => rows.map_err(failed)?,
        ended = connection => return Err(match ended {
            Err(error) => failed(error),
            Ok(()) => Observation::fail("no-answer")
                .with_detail(format!("{endpoint}: the connection was closed")),
        }),
    };
    Status::read(&rows).ok_or_else(|| {
        let detail = format!("{endpoint}: what came is not what PostgreSQL 13 and newer answer");
        Observation::unknown("not-told").with_detail(detail)
    })
}

/// The server's own words have no secret in them: it never repeats a password.
fn failed(endpoint: &Endpoint, error: &tokio_postgres::Error) -> Observation {
    let detail = format!("{endpoint}: {}", in_full(error));
    let no_password = error
        .source()
        .is_some_and(|why| why.to_string() == "password missing");
    let cause = match error.code() {
        _ if no_password => "login-required",
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            "login-refused"
        }
        Some(&SqlState::TOO_MANY_CONNECTIONS) => "too-many-connections",
        Some(&SqlState::INVALID_CATALOG_NAME) => "no-database",
        Some(&SqlState::CANNOT_CONNECT_NOW) => "starting",
        Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN) => "shutting-down",
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Observation::unknown("not-permitted").with_detail(detail);
        }
        _ => "no-answer",
    };
    Observation::fail(cause).with_detail(detail)
}
