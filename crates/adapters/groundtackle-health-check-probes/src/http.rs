use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::{Answer, Authorities, Headers, HttpClient, HttpUrl};
use http::{HeaderMap, HeaderName, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::probe::either;

/// A server that answers what it should over HTTP or HTTPS.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpProbe {
    /// What is asked for. Keys in it are not shown.
    pub url: HttpUrl,
    /// `"get"` or `"head"`. Default `"get"`.
    #[serde(default)]
    pub method: HttpMethod,
    /// Headers to send. Their values are not shown. Default: none.
    #[serde(default)]
    pub headers: Headers,
    /// The certificates of the authorities that are believed, as a PEM file. Default: the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// The status codes that are fine. Default: 200 to 299.
    #[serde(default)]
    pub expect_status: Vec<u16>,
    /// Headers that must be there, with exactly these values. Default: none.
    #[serde(default)]
    pub expect_headers: ExpectedHeaders,
    /// Texts that must be in the body. Default: none.
    #[serde(default)]
    pub expect_body: Vec<String>,
    /// What must be true of the body as JSON. Default: nothing.
    #[serde(default)]
    pub expect_json: Vec<JsonAssertion>,
    /// An answer that is fine, and takes longer, is `Warn`. Default: never.
    #[serde(
        default,
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional"
    )]
    pub warn_slower_than: Option<Duration>,
    /// Longer bodies are `Fail`. Default `"1MiB"`.
    #[serde(default = "max_answer")]
    pub max_answer: ByteSize,
}

const fn max_answer() -> ByteSize {
    ByteSize::mib(1)
}

impl HttpProbe {
    /// A probe that any status from 200 to 299 satisfies.
    #[must_use]
    pub fn new(url: HttpUrl) -> Self {
        Self {
            url,
            method: HttpMethod::default(),
            headers: Headers::default(),
            authorities: None,
            expect_status: Vec::new(),
            expect_headers: ExpectedHeaders::default(),
            expect_body: Vec::new(),
            expect_json: Vec::new(),
            warn_slower_than: None,
            max_answer: max_answer(),
        }
    }
}

/// How a probe asks: by methods that change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpMethod {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`, which has no body.
    Head,
}

/// Headers by their names, with the values that they must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct ExpectedHeaders(Vec<(HeaderName, String)>);

impl TryFrom<BTreeMap<String, String>> for ExpectedHeaders {
    type Error = String;

    fn try_from(headers: BTreeMap<String, String>) -> Result<Self, String> {
        let one = |(name, value): (String, String)| match HeaderName::try_from(&name) {
            Ok(known) => Ok((known, value)),
            Err(_) => Err(format!("{name:?} is no name of a header")),
        };
        headers
            .into_iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Something that must be true of JSON. Without `equals`, `at_least` and `at_most` it must be there, and not be `null`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JsonAssertion {
    /// Of what: a JSON pointer (RFC 6901), such as `"/result/peers"`; `""` is all of it.
    pub pointer: Pointer,
    /// It must be this. Numbers are compared as numbers. Default: anything.
    #[serde(default)]
    pub equals: Option<Value>,
    /// It must be a number of at least this.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// It must be a number of at most this.
    #[serde(default)]
    pub at_most: Option<f64>,
}

/// A JSON pointer: empty, or beginning with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(String);

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('/') {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is no JSON pointer: it begins with /, such as /result/peers"
        ))
    }
}

impl JsonAssertion {
    /// What is wrong, if anything is. Neither value is told: it may be secret.
    fn problem(&self, body: &Value) -> Option<&'static str> {
        let Some(found) = body
            .pointer(&self.pointer.0)
            .filter(|found| !found.is_null())
        else {
            return Some("is not there");
        };
        let same = |wanted: &Value| {
            found == wanted
                || wanted
                    .as_f64()
                    .is_some_and(|wanted| found.as_f64() == Some(wanted))
        };
        if self.equals.as_ref().is_some_and(|wanted| !same(wanted)) {
            return Some("is not what it must be");
        }
        if self.at_least.is_some() || self.at_most.is_some() {
            let Some(number) = found.as_f64() else {
                return Some("is no number");
            };
            if self.at_least.is_some_and(|least| number < least) {
                return Some("is too small");
            }
            if self.at_most.is_some_and(|most| number > most) {
                return Some("is too large");
            }
        }
        None
    }
}

#[derive(Debug)]
pub(crate) struct HttpCheck {
    probe: HttpProbe,
    client: HttpClient,
}

impl From<HttpProbe> for HttpCheck {
    fn from(probe: HttpProbe) -> Self {
        let authorities = Authorities::new(probe.authorities.clone());
        let client = HttpClient::new(
            probe.url.clone(),
            probe.headers.clone(),
            authorities,
            probe.max_answer,
        );
        Self { probe, client }
    }
}

impl HttpCheck {
    async fn look(&self) -> Result<Observation, Observation> {
        let method = match self.probe.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Head => Method::HEAD,
        };
        let begun = Instant::now();
        let answer = self
            .client
            .request(method, HeaderMap::new(), Default::default())
            .await;
        let answer = answer.map_err(|error| error.observation())?;
        let took = begun.elapsed();
        self.judge(&answer)?;
        let slow = self
            .probe
            .warn_slower_than
            .is_some_and(|limit| took > limit);
        let seen = if slow {
            Observation::warn("slow")
        } else {
            Observation::pass()
        };
        Ok(seen.with_detail(format!("{} in {took:.0?}", answer.status.as_u16())))
    }

    fn judge(&self, answer: &Answer) -> Result<(), Observation> {
        let probe = &self.probe;
        let wrong = |cause: &'static str, detail: String| {
            Err(Observation::fail(cause).with_detail(format!("{}: {detail}", probe.url)))
        };
        let status = answer.status;
        let fine = if probe.expect_status.is_empty() {
            status.is_success()
        } else {
            probe.expect_status.contains(&status.as_u16())
        };
        if !fine {
            return wrong("status", format!("the status is {status}"));
        }
        for (name, wanted) in &probe.expect_headers.0 {
            if !answer
                .headers
                .get_all(name)
                .iter()
                .any(|value| value == wanted)
            {
                return wrong("header", format!("{name} is not what it must be"));
            }
        }
        if !probe.expect_body.is_empty() {
            let body = String::from_utf8_lossy(&answer.body);
            if let Some(missing) = probe
                .expect_body
                .iter()
                .find(|text| !body.contains(text.as_str()))
            {
                return wrong("body", format!("{missing:?} is not in the body"));
            }
        }
        if !probe.expect_json.is_empty() {
            let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
                return wrong("no-json", "the body is no JSON".into());
            };
            for assertion in &probe.expect_json {
                if let Some(problem) = assertion.problem(&body) {
                    return wrong("json", format!("{:?} {problem}", assertion.pointer.0));
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Check for HttpCheck {
    async fn check(&self) -> Observation {
        either(self.look().await)
    }
}
