//! What went wrong, as what was seen.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use groundtackle_health_check::Observation;
use groundtackle_health_check_client::connection_cause;

/// What keeps a step from being done.
pub(crate) fn failed<E>(doing: &str, error: &SdkError<E, HttpResponse>) -> Observation
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    let cause = match error {
        SdkError::ServiceError(_) => refusal(status, error.code().unwrap_or_default()),
        SdkError::TimeoutError(_) => "timeout",
        SdkError::DispatchFailure(failure) => match error.source().and_then(connection_cause) {
            Some(cause) => cause,
            None if failure.is_timeout() => "timeout",
            None => "no-answer",
        },
        _ => "no-answer",
    };
    let detail = match error {
        SdkError::ServiceError(_) => {
            let code = error.code().unwrap_or("no code");
            let message = error.message().unwrap_or("no message");
            format!("{status} {code}: {message}")
        }
        _ => DisplayErrorContext(error).to_string(),
    };
    Observation::fail(cause).with_detail(format!("to {doing} the canary: {detail}"))
}

fn refusal(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, "NoSuchBucket") => "no-bucket",
        (_, "NoSuchKey") => "lost",
        (
            _,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired",
        )
        | (401, _) => "login-refused",
        (_, "RequestTimeTooSkewed") => "clock-skew",
        (
            _,
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
        )
        | (301 | 307, _) => "wrong-region",
        (429, _) | (503, "SlowDown") => "throttled",
        (403, _) => "denied",
        (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => "full",
        (500.., _) => "server-error",
        _ => "refused-by-server",
    }
}

pub(crate) fn late(doing: &str, limit: std::time::Duration) -> Observation {
    let detail = format!("to {doing} the canary: no answer within answer_timeout ({limit:?})");
    Observation::fail("timeout").with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_causes() {
        for (status, code, cause) in [
            (404, "NoSuchBucket", "no-bucket"),
            (404, "NoSuchKey", "lost"),
            (403, "InvalidAccessKeyId", "login-refused"),
            (403, "SignatureDoesNotMatch", "login-refused"),
            (400, "ExpiredToken", "login-refused"),
            (401, "", "login-refused"),
            (403, "RequestTimeTooSkewed", "clock-skew"),
            (403, "AccessDenied", "denied"),
            (403, "", "denied"),
            (301, "PermanentRedirect", "wrong-region"),
            (400, "AuthorizationHeaderMalformed", "wrong-region"),
            (503, "SlowDown", "throttled"),
            (429, "", "throttled"),
            (503, "ServiceUnavailable", "server-error"),
            (500, "InternalError", "server-error"),
            (507, "XMinioStorageFull", "full"),
            (400, "InvalidRequest", "refused-by-server"),
        ] {
            assert_eq!(refusal(status, code), cause, "{status} {code}");
        }
    }
}
