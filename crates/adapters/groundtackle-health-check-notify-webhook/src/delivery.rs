use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use groundtackle_core::ByteSize;
use groundtackle_health_check::{Error, Result, Retryability};
use groundtackle_health_check_client::{
    Answer, Authorities, Connection, Headers, HttpClient, SafeUrl,
};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep_until};

/// Longer waits that a server asks for are told to whoever repeats, not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest time that a server may ask to be left alone.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// What is read of answers: nobody needs them.
const MAX_ANSWER: ByteSize = ByteSize::new(64 * 1024);

/// Why a server did not take a message.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the server refuses it with status {0}")]
    Status(u16),
    #[error("the server asks to be left alone for {0} s more")]
    TooEarly(u64),
}

/// Posts JSON to one URL, and leaves the server alone for as long as it asks. What other notifiers over HTTP are made of.
///
/// A 429 or 503 is `Transient`; its `Retry-After` (in seconds, at most 600) is kept: what is posted before is not sent. Up to 5 s are waited
/// for, else it is `Transient` at once. Other 5xx and broken connections are `Indeterminate`, other statuses `Permanent`.
#[derive(Debug)]
pub struct Delivery {
    notifier: &'static str,
    client: HttpClient,
    not_before: Mutex<Option<Instant>>,
}

impl Delivery {
    /// To this URL. `notifier` is what errors call it; `authorities` are those of [`Authorities::new`].
    #[must_use]
    pub fn new(
        notifier: &'static str,
        url: SafeUrl,
        headers: Headers,
        authorities: Option<PathBuf>,
    ) -> Self {
        let client = HttpClient::new(
            url.into(),
            headers,
            Authorities::new(authorities),
            MAX_ANSWER,
        );
        let not_before = Mutex::new(None);
        Self {
            notifier,
            client,
            not_before,
        }
    }

    /// Begins a message of one or several requests, which share a connection.
    #[must_use]
    pub const fn begin(&self) -> Posting<'_> {
        Posting {
            delivery: self,
            connection: None,
        }
    }

    fn error(
        &self,
        retryability: Retryability,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Notify {
            notifier: self.notifier,
            action: format!("telling {}", self.client.url()),
            retryability,
            source: source.into(),
        }
    }

    async fn wait(&self) -> Result<()> {
        let until = *self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(until) = until else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        if left > PATIENCE {
            let refusal = Refusal::TooEarly(left.as_secs());
            return Err(self.error(Retryability::Transient, refusal));
        }
        sleep_until(until).await;
        Ok(())
    }

    fn read(&self, answer: &Answer) -> Result<()> {
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            return Ok(());
        }
        let retryability = match status {
            429 | 503 => {
                if let Some(wait) = retry_after(&answer.headers) {
                    let until = Instant::now().checked_add(wait);
                    *self
                        .not_before
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = until;
                }
                Retryability::Transient
            }
            408 | 425 => Retryability::Transient,
            500..=599 => Retryability::Indeterminate,
            _ => Retryability::Permanent,
        };
        Err(self.error(retryability, Refusal::Status(status)))
    }
}

/// In seconds, which may have a fraction; dates, which nobody sends here, are not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let secs: f64 = value.trim().parse().ok()?;
    let wait = Duration::try_from_secs_f64(secs).ok()?;
    Some(wait.min(MAX_WAIT))
}

/// Requests of one message.
#[derive(Debug)]
pub struct Posting<'a> {
    delivery: &'a Delivery,
    connection: Option<Connection>,
}

impl Posting<'_> {
    /// Posts a body of JSON.
    ///
    /// **Cancel safety**: dropped, it may have arrived.
    ///
    /// # Errors
    /// `Notify`.
    pub async fn post(&mut self, mut headers: HeaderMap, body: impl Into<Bytes>) -> Result<()> {
        let delivery = self.delivery;
        delivery.wait().await?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => delivery
                .client
                .connect()
                .await
                .map_err(|error| delivery.error(error.retryability(), error))?,
        };
        let answer = connection.request(Method::POST, headers, body.into()).await;
        let answer = answer.map_err(|error| delivery.error(error.retryability(), error))?;
        let closes = answer
            .headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes {
            self.connection = Some(connection);
        }
        delivery.read(&answer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        let asked = |text: &str| {
            let value = HeaderValue::try_from(text).unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(asked("2"), Some(Duration::from_secs(2)));
        assert_eq!(asked("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(asked("1e9"), Some(MAX_WAIT));
        for text in [
            "",
            "-1",
            "NaN",
            "inf",
            "1e300",
            "Wed, 21 Oct 2015 07:28:00 GMT",
        ] {
            assert_eq!(asked(text), None, "{text}");
        }
    }
}
