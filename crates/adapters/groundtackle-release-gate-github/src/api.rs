//! Requests to the REST API, version 2022-11-28 (<https://docs.github.com/en/rest>).

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use groundtackle_core::RetryConfig;
use groundtackle_health_check_client::{
    Answer, Authorities, Blocking, Connection, Headers, HttpClient, HttpUrl, SecretSource,
};
use groundtackle_release_gate::{Error, Result, Retryability};
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, LINK, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::GitHubConfig;
use crate::error::{Refusal, corrupt, failed};

/// Longer waits that GitHub asks for are told to whoever repeats, not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often such a wait is waited for before it is told.
const MAX_WAITS: u32 = 3;
/// The longest time that GitHub may ask to be left alone: its limits are of an hour.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// "Otherwise, wait for at least one minute before retrying."
const UNTOLD_WAIT: Duration = Duration::from_secs(60);
/// How long a page is, of lists that are read to their end.
const FULL_PAGE: usize = 100;

#[derive(Debug)]
pub(crate) struct Api {
    client: HttpClient,
    /// What comes before `/repos`, without a slash at its end.
    prefix: String,
    token: SecretSource,
    blocking: Blocking,
    timeout: Duration,
    max_requests: usize,
    retry: RetryConfig,
    not_before: Mutex<Option<Instant>>,
}

/// Percent-encoded, so that it is one segment of a path or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Into a text it can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl Api {
    pub(crate) fn new(config: &GitHubConfig) -> Self {
        let url: HttpUrl = config.api.clone().into();
        let prefix = url.path().trim_end_matches('/').to_owned();
        let authorities = Authorities::new(config.authorities.clone());
        Self {
            client: HttpClient::new(url, Headers::default(), authorities, config.max_answer),
            prefix,
            token: config.token.clone(),
            blocking: Blocking::default(),
            timeout: config.timeout,
            max_requests: config.max_requests,
            retry: config.retry.clone(),
            not_before: Mutex::new(None),
        }
    }

    /// Requests of one call, which share a connection.
    pub(crate) async fn session(&self) -> Result<Session<'_>> {
        let read = self.token.read(&self.blocking).await;
        let token = read.map_err(|error| {
            let retryability = reading(error.retryability());
            failed("reading the token", retryability, error)
        })?;
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
                Error::invalid_request("the token has a line break or a control character")
            })?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        );
        headers.insert(
            "x-github-api-version",
            HeaderValue::from_static("2022-11-28"),
        );
        Ok(Session {
            api: self,
            headers,
            connection: None,
            asked: 0,
        })
    }

    async fn wait(&self, action: &str) -> Result<()> {
        let Some(until) = self.not_before() else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        if left > PATIENCE {
            let limited = Refusal::Limited(left.as_secs());
            return Err(failed(action, Retryability::Transient, limited));
        }
        sleep_until(until).await;
        Ok(())
    }

    fn not_before(&self) -> Option<Instant> {
        *self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How GitHub says that requests are limited, if it does
    /// (<https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#rate-limit-errors>).
    fn limited(&self, answer: &Answer, message: &str) -> Option<Duration> {
        let wait = limit_of(answer, message, SystemTime::now())?;
        let until = Instant::now().checked_add(wait);
        *self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
        Some(wait)
    }
}

fn limit_of(answer: &Answer, message: &str, now: SystemTime) -> Option<Duration> {
    let number = |name: &str| -> Option<u64> {
        let value = answer.headers.get(name)?.to_str().ok()?;
        value.trim().parse().ok()
    };
    let limited = matches!(
        answer.status,
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    );
    if !limited {
        return None;
    }
    let wait = if let Some(secs) = number(RETRY_AFTER.as_str()) {
        Duration::from_secs(secs)
    } else if number("x-ratelimit-remaining") == Some(0) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let reset = number("x-ratelimit-reset").unwrap_or_default();
        // The clocks may differ by a little.
        Duration::from_secs(reset.saturating_sub(now).saturating_add(1))
    } else if answer.status == StatusCode::TOO_MANY_REQUESTS
        || message.to_ascii_lowercase().contains("rate limit")
    {
        UNTOLD_WAIT
    } else {
        return None;
    };
    Some(wait.min(MAX_WAIT))
}

/// Reading changes nothing, so that nothing can have been applied.
const fn reading(retryability: Retryability) -> Retryability {
    match retryability {
        Retryability::Permanent => Retryability::Permanent,
        _ => Retryability::Transient,
    }
}

/// What GitHub says of an error, cut short.
fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let read: Option<Message> = serde_json::from_slice(body).ok();
    let text = read.map_or_else(|| "it does not say why".into(), |said| said.message);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

/// Requests of one call.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    api: &'a Api,
    headers: HeaderMap,
    connection: Option<Connection>,
    asked: usize,
}

/// A page of a list, and the path of the next one.
struct Page<T> {
    value: T,
    next: Option<String>,
    /// Whether it says anything about other pages.
    linked: bool,
}

/// What a page has.
pub(crate) trait Listed {
    /// How many.
    fn len(&self) -> usize;
}

impl<T> Listed for Vec<T> {
    fn len(&self) -> usize {
        self.len()
    }
}

impl Session<'_> {
    /// One thing; `None` if it is not there.
    pub(crate) async fn get<T: DeserializeOwned>(
        &mut self,
        what: &str,
        path: &str,
    ) -> Result<Option<T>> {
        Ok(self.page(what, path).await?.map(|page| page.value))
    }

    /// All pages of a list, until `take` has enough of it. A list that is not there is an error.
    ///
    /// A full page without a word of others may be all there is, or have lost its header `Link` on the way: then the next one is
    /// asked for by its number.
    pub(crate) async fn pages<T: DeserializeOwned + Listed>(
        &mut self,
        what: &str,
        path: &str,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<()> {
        let first = path;
        let mut path = first.to_owned();
        let mut number: u32 = 1;
        loop {
            let Some(page) = self.page::<T>(what, &path).await? else {
                let status = Refusal::Status {
                    status: 404,
                    message: "it is not there, or the token may not see it".into(),
                };
                return Err(failed(
                    format!("reading {what}"),
                    Retryability::Permanent,
                    status,
                ));
            };
            let full = page.value.len() >= FULL_PAGE;
            let more = take(page.value);
            number = number.saturating_add(1);
            path = match page.next {
                Some(next) if more => next,
                None if more && full && !page.linked => format!("{first}&page={number}"),
                _ => return Ok(()),
            };
        }
    }

    /// The same as one list.
    pub(crate) async fn all<T: DeserializeOwned>(
        &mut self,
        what: &str,
        path: &str,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let take = |mut page: Vec<T>| {
            all.append(&mut page);
            true
        };
        self.pages(what, path, take).await?;
        Ok(all)
    }

    async fn page<T: DeserializeOwned>(
        &mut self,
        what: &str,
        path: &str,
    ) -> Result<Option<Page<T>>> {
        let action = format!("reading {what}");
        let path = format!("{}{path}", self.api.prefix);
        let mut schedule = self.api.retry.schedule();
        let answer = loop {
            let asked = self.request(&action, &path, Method::GET, Bytes::new());
            match asked.await {
                Ok(answer) => break answer,
                Err((error, again)) => match schedule.next_delay().filter(|_| again) {
                    Some(delay) => sleep(delay).await,
                    None => return Err(error),
                },
            }
        };
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let next = self.next(what, &answer)?;
        let linked = answer.headers.contains_key(LINK);
        let value = serde_json::from_slice(&answer.body)
            .map_err(|error| corrupt(what, format!("it is not as documented: {error}")))?;
        Ok(Some(Page {
            value,
            next,
            linked,
        }))
    }

    /// Writes something; what comes back is read.
    pub(crate) async fn send<T: DeserializeOwned>(
        &mut self,
        action: &str,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let answer = self.written(action, method, path, body).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| failed(action, Retryability::Indeterminate, error))
    }

    /// Writes something; what comes back is not read.
    pub(crate) async fn write(
        &mut self,
        action: &str,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<()> {
        self.written(action, method, path, body).await.map(drop)
    }

    async fn written(
        &mut self,
        action: &str,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Answer> {
        let path = format!("{}{path}", self.api.prefix);
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::invalid_request(format!("{action}: {error}")))?;
        // One that was left open may be closed by now, and then nobody knows what arrived.
        self.connection = None;
        let answer = self
            .request(action, &path, method, body.into())
            .await
            .map_err(|(error, _)| error)?;
        if answer.status == StatusCode::NOT_FOUND {
            let status = Refusal::Status {
                status: 404,
                message: "it is not there, or the token may not write it".into(),
            };
            return Err(failed(action, Retryability::Permanent, status));
        }
        Ok(answer)
    }

    /// An answer that is a success, or 404; otherwise the error, and whether reading again may help.
    async fn request(
        &mut self,
        action: &str,
        path: &str,
        method: Method,
        body: Bytes,
    ) -> std::result::Result<Answer, (Error, bool)> {
        let reads = method == Method::GET;
        let as_is = |retryability| match reads {
            true => reading(retryability),
            false => retryability,
        };
        let mut waits: u32 = 0;
        loop {
            self.asked = self.asked.saturating_add(1);
            if self.asked > self.api.max_requests {
                let many = Refusal::TooMany(self.api.max_requests);
                return Err((failed(action, Retryability::Permanent, many), false));
            }
            self.api
                .wait(action)
                .await
                .map_err(|error| (error, false))?;
            let exchanged = timeout(
                self.api.timeout,
                self.exchange(path, method.clone(), body.clone()),
            );
            let answer = match exchanged.await {
                Err(_) => {
                    let late = Refusal::TimedOut(self.api.timeout);
                    let retryability = as_is(Retryability::Indeterminate);
                    return Err((failed(action, retryability, late), true));
                }
                Ok(Err(error)) => {
                    let retryability = as_is(error.retryability());
                    let again = retryability != Retryability::Permanent
                        && !matches!(
                            error,
                            groundtackle_health_check_client::Error::TooLarge { .. }
                        );
                    return Err((failed(action, retryability, error), again));
                }
                Ok(Ok(answer)) => answer,
            };
            if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
                return Ok(answer);
            }
            let message = message_of(&answer.body);
            if let Some(wait) = self.api.limited(&answer, &message) {
                if wait <= PATIENCE && waits < MAX_WAITS {
                    waits = waits.saturating_add(1);
                    continue;
                }
                let limited = Refusal::Limited(wait.as_secs());
                return Err((failed(action, Retryability::Transient, limited), false));
            }
            let (retryability, again) = match answer.status {
                StatusCode::REQUEST_TIMEOUT => (Retryability::Transient, true),
                status if status.is_server_error() => (as_is(Retryability::Indeterminate), true),
                _ => (Retryability::Permanent, false),
            };
            let status = answer.status.as_u16();
            let refusal = Refusal::Status { status, message };
            return Err((failed(action, retryability, refusal), again));
        }
    }

    async fn exchange(
        &mut self,
        path: &str,
        method: Method,
        body: Bytes,
    ) -> groundtackle_health_check_client::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.api.client.connect().await?,
        };
        let headers = self.headers.clone();
        let answer = connection.request_at(path, method, headers, body).await?;
        let closes = answer
            .headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// Where the next page is, which has to be of the same server: the token goes there.
    fn next(&self, what: &str, answer: &Answer) -> Result<Option<String>> {
        for value in answer.headers.get_all(LINK) {
            let text = value
                .to_str()
                .map_err(|_| corrupt(what, "its header Link is no text"))?;
            let Some(url) = next_link(text) else { continue };
            return match self.own_path(url) {
                Some(path) => Ok(Some(path)),
                None => Err(corrupt(what, "its next page is of another server")),
            };
        }
        Ok(None)
    }

    /// Path and query of a URL of this API, from `/repos` on.
    pub(crate) fn own_path(&self, url: &str) -> Option<String> {
        let url: HttpUrl = url.parse().ok()?;
        let own = self.api.client.url();
        let path = url.path().strip_prefix(&self.api.prefix)?;
        let same = url.is_tls() == own.is_tls() && url.endpoint() == own.endpoint();
        (same && path.starts_with('/')).then(|| path.to_owned())
    }
}

/// The URL of `rel="next"` in a header `Link` (RFC 8288).
fn next_link(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (url, after) = after.split_once('>')?;
        let (parameters, after) = after.split_once('<').map_or((after, ""), |(mine, _)| {
            (mine, after.get(mine.len()..).unwrap_or_default())
        });
        let next = parameters.split([';', ',']).any(|parameter| {
            let parameter = parameter.trim().replace('"', "");
            parameter.eq_ignore_ascii_case("rel=next")
        });
        if next {
            return Some(url);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let api = "https://api.github.com/repositories/1000/issues?per_page=3";
        for (text, next) in [
            (
                format!("<{api}&page=2>; rel=\"next\", <{api}&page=5>; rel=\"last\""),
                Some(2),
            ),
            (
                format!(
                    "<{api}&page=1>; rel=\"prev\", <{api}&page=3>; rel=\"next\", <{api}&page=5>; rel=\"last\""
                ),
                Some(3),
            ),
            (format!("<{api}&page=4>; rel=next"), Some(4)),
            (
                format!("<{api}&page=4>; title=\"a, b\"; rel=\"next\""),
                Some(4),
            ),
            (
                format!("<{api}&page=4>; rel=\"prev\", <{api}&page=1>; rel=\"first\""),
                None,
            ),
            (String::new(), None),
            ("<".into(), None),
            ("<>; rel=\"nextt\"".into(), None),
        ] {
            let wanted = next.map(|page| format!("{api}&page={page}"));
            assert_eq!(next_link(&text), wanted.as_deref(), "{text}");
        }
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(encoded("v1.4.0-rc_1~"), "v1.4.0-rc_1~");
        assert_eq!(
            encoded("../a b?c=d&e#f%é"),
            "..%2Fa%20b%3Fc%3Dd%26e%23f%25%C3%A9"
        );
    }
}
