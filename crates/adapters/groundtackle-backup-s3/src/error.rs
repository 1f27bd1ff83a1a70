//! The server's errors in the port's terms, and what is done again.

use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use groundtackle_backup::{Error, Retryability};
use groundtackle_core::RetryConfig;

pub(crate) const BACKEND: &str = "s3";

/// What the server or the way to it said.
#[derive(Debug)]
pub(crate) struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Said {}

/// One attempt that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: u16,
    pub(crate) code: String,
    retryability: Retryability,
    said: String,
}

impl Failed {
    /// No answer in time.
    fn late(timeout: Duration) -> Self {
        Self {
            status: 0,
            code: String::new(),
            retryability: Retryability::Indeterminate,
            said: format!("no answer within answer_timeout ({timeout:?})"),
        }
    }

    /// An answer that broke off, or is not what was asked for.
    pub(crate) fn answer(said: String) -> Self {
        Self {
            status: 0,
            code: String::new(),
            retryability: Retryability::Indeterminate,
            said,
        }
    }

    fn is_throttled(&self) -> bool {
        matches!(self.status, 429 | 503)
            || matches!(
                self.code.as_str(),
                "SlowDown"
                    | "ServiceUnavailable"
                    | "Throttling"
                    | "ThrottlingException"
                    | "RequestLimitExceeded"
            )
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.status == 404 && self.code != "NoSuchBucket"
    }

    /// A condition that does not hold.
    pub(crate) fn is_refused(&self) -> bool {
        self.status == 412
    }

    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

impl<E> From<SdkError<E>> for Failed
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        use Retryability::{Indeterminate, Permanent, Transient};
        let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let chain = DisplayErrorContext(&error).to_string();
        let retryability = match &error {
            SdkError::ConstructionFailure(_) => Permanent,
            // Nothing was sent where nobody listens, or where there are no credentials to sign it with.
            SdkError::DispatchFailure(_) if chain.contains("tcp connect error") => Transient,
            SdkError::DispatchFailure(failure) if failure.is_user() => Permanent,
            SdkError::ServiceError(_) => match status {
                429 | 503 => Transient,
                // Another write to the same key was under way; or the server took too long to get it.
                409 if code != "BucketNotEmpty" && code != "InvalidBucketState" => Transient,
                400 if code == "RequestTimeout"
                    || code == "IncompleteBody"
                    || code == "BadDigest" =>
                {
                    Transient
                }
                500.. => Indeterminate,
                _ => Permanent,
            },
            _ => Indeterminate,
        };
        let said = match &error {
            SdkError::ServiceError(_) if !code.is_empty() => {
                let message = error.message().unwrap_or("no message");
                format!("{status} {code}: {message}")
            }
            _ => chain,
        };
        Self {
            status,
            code,
            retryability,
            said,
        }
    }
}

/// A call that failed for good.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) last: Failed,
    attempts: u32,
    /// Whether an attempt before the last one may have been applied.
    pub(crate) doubtful: bool,
}

impl Failure {
    /// As the port has it. `writes`: whether an attempt can have changed something.
    pub(crate) fn into_error(self, action: impl Into<String>, writes: bool) -> Error {
        let action = action.into();
        let Self {
            last,
            attempts,
            doubtful,
        } = self;
        let mut retryability = last.retryability;
        if doubtful {
            retryability = retryability.after(Retryability::Indeterminate);
        }
        if !writes && retryability == Retryability::Indeterminate {
            retryability = Retryability::Transient;
        }
        if last.is_throttled() && !(doubtful && writes) {
            return Error::Overloaded {
                backend: BACKEND,
                action: format!("{action} ({})", last.said),
            };
        }
        if last.is_denied() && !(doubtful && writes) {
            return Error::Denied {
                backend: BACKEND,
                action: format!("{action} ({})", last.said),
            };
        }
        let error = Error::backend(BACKEND, action.clone(), retryability, Said(last.said));
        if attempts == 1 {
            return error;
        }
        Error::GaveUp {
            action,
            attempts,
            retryability: match retryability {
                Retryability::Indeterminate => Retryability::Indeterminate,
                Retryability::Permanent | Retryability::Transient => Retryability::Permanent,
            },
            source: Box::new(error),
        }
    }
}

/// Does a request until it is answered. Every request here may be sent again: it reads, it carries a condition that does
/// not hold a second time, or it changes nothing the second time.
pub(crate) async fn retrying<T, F>(
    retry: &RetryConfig,
    timeout: Duration,
    mut request: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut schedule = retry.schedule();
    let (mut attempts, mut doubtful) = (0, false);
    loop {
        attempts += 1;
        // On the heap: the SDK's futures have tens of kilobytes.
        let answer = tokio::time::timeout(timeout, Box::pin(request())).await;
        let last = match answer {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failed)) => failed,
            Err(_) => Failed::late(timeout),
        };
        let delay = match last.retryability {
            Retryability::Permanent => None,
            Retryability::Transient | Retryability::Indeterminate => schedule.next_delay(),
        };
        let Some(delay) = delay else {
            return Err(Failure {
                last,
                attempts,
                doubtful,
            });
        };
        doubtful |= last.retryability == Retryability::Indeterminate;
        tokio::time::sleep(delay).await;
    }
}
