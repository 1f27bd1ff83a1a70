//! One connection, and what the server says on it.

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check::Observation;
use groundtackle_health_check_client::{Endpoint, Error, Tls, Way, bounded};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::RedisCheckConfig;

/// A server tells of itself in 10 KB, and a line more for each replica.
const MAX_ANSWERS: ByteSize = ByteSize::mib(1);

const FORM: &str = "the URL can't be read; write rediss://user:password@host:6379, with special characters of the password as %XX";

/// What a URL says.
pub(crate) struct Place {
    pub(crate) secure: bool,
    endpoint: Endpoint,
    user: Option<String>,
    password: Option<Secret>,
}

/// Nothing of the URL is repeated: a part of the password may be in it.
pub(crate) fn place(url: &Secret) -> Result<Place, &'static str> {
    let mut url = redis::parse_redis_url(url.expose()).ok_or(FORM)?;
    let secure = matches!(url.scheme(), "rediss" | "valkeys");
    if url.fragment().is_some() {
        return Err(
            "the URL has a #; name the server's authority in tls_authorities instead of #insecure",
        );
    }
    // TLS is ours: the client gets a stream.
    if secure && url.set_scheme("redis").is_err() {
        return Err(FORM);
    }
    let info = url.into_connection_info().map_err(|_| FORM)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(FORM);
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let endpoint = Endpoint::of(host, *port).map_err(|_| FORM)?;
    let login = info.redis_settings();
    Ok(Place {
        secure,
        endpoint,
        user: login.username().map(Into::into),
        password: login.password().map(Into::into),
    })
}

/// What the server said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) info: String,
    /// Where it is one of a Redis Cluster.
    pub(crate) cluster: Option<String>,
}

/// Connects, and asks.
pub(crate) async fn ask(way: &Way, config: &RedisCheckConfig) -> Result<Said, Observation> {
    let seen = |error: Error| error.observation();
    let url = way.secret(&config.url).await.map_err(seen)?;
    let mut place = config
        .place(&url)
        .map_err(|why| Observation::fail("bad-url").with_detail(why))?;
    if let Some(password) = &config.password {
        place.password = Some(way.secret(password).await.map_err(seen)?);
    }
    let endpoint = &place.endpoint;
    let stream = way.connect(endpoint).await.map_err(seen)?;
    match config.tls {
        Tls::Off => talk(stream, &place).await,
        _ => {
            let stream = way.secure(stream, endpoint).await;
            talk(stream.map_err(seen)?, &place).await
        }
    }
}

/// The connection lives as long as this future.
async fn talk<S>(stream: S, place: &Place) -> Result<Said, Observation>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = bounded(stream, MAX_ANSWERS);
    // Timeouts are the check's.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    // The login is ours: the client calls all that goes wrong with it a wrong password.
    let no_login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name();
    let made = MultiplexedConnection::new_with_config(&no_login, stream, config).await;
    let (mut connection, driver) = made.map_err(|error| failed(place, &error))?;
    let asking = async {
        log_in(&mut connection, place).await?;
        let said = questions(&mut connection).await;
        said.map_err(|error| failed(place, &error))
    };
    tokio::select! {
        biased;
        said = asking => said,
        () = driver => Err(Observation::fail("no-answer")
            .with_detail(format!("{}: the connection broke", place.endpoint))),
    }
}

async fn log_in(connection: &mut MultiplexedConnection, place: &Place) -> Result<(), Observation> {
    let Some(password) = &place.password else {
        return Ok(());
    };
    let mut login = redis::cmd("AUTH");
    if let Some(user) = &place.user {
        login.arg(user);
    }
    let answer = login
        .arg(password.expose())
        .query_async::<String>(connection);
    match answer.await {
        Ok(_) => Ok(()),
        Err(error) => {
            let seen = failed(place, &error);
            // Versions differ in what they call it.
            let refused = error.code() == Some("ERR") && seen.cause.as_str() == "no-answer";
            Err(match seen.detail {
                Some(detail) if refused => Observation::fail("login-refused").with_detail(detail),
                _ => seen,
            })
        }
    }
}

async fn questions(connection: &mut MultiplexedConnection) -> Result<Said, RedisError> {
    let _: String = redis::cmd("PING").query_async(connection).await?;
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let in_cluster = crate::info::value(&info, "cluster_enabled") == Some("1");
    let cluster = if in_cluster {
        let cluster: String = Cmd::new()
            .arg("CLUSTER")
            .arg("INFO")
            .query_async(connection)
            .await?;
        Some(cluster)
    } else {
        None
    };
    Ok(Said { info, cluster })
}

/// The server's own words have no secret in them: it never repeats a password.
fn failed(place: &Place, error: &RedisError) -> Observation {
    let said = error.detail().unwrap_or_default();
    let cause = match error.code() {
        Some("LOADING") => "loading",
        Some("NOAUTH") => "login-required",
        Some("WRONGPASS") => "login-refused",
        Some("NOPERM") => {
            let detail = format!(
                "{}: allow +ping +info +cluster|info: {said}",
                place.endpoint
            );
            return Observation::unknown("not-permitted").with_detail(detail);
        }
        _ if said.contains("max number of clients") => "too-many-connections",
        _ => "no-answer",
    };
    Observation::fail(cause).with_detail(format!("{}: {error}", place.endpoint))
}
