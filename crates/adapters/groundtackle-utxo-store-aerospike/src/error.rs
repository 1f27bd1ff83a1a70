use aerospike::{ErrorKind, ResultCode};
use groundtackle_utxo_store::{Error, Retryability};

pub(crate) const BACKEND: &str = "aerospike";

pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt(BACKEND, what, detail)
}

/// Whether the server has too much to do, so that less has to be sent at a time.
pub(crate) fn is_overload(error: &aerospike::Error) -> bool {
    error.is_client_timeout()
        || matches!(
            error.server_result_code(),
            Some(
                ResultCode::DeviceOverload
                    | ResultCode::Timeout
                    | ResultCode::KeyBusy
                    | ResultCode::BatchQueuesFull
                    | ResultCode::QueryQueueFull
            )
        )
}

/// Whether a node refuses the request itself, now and later. Of a code that is not known nothing is known.
pub(crate) const fn is_permanent(code: ResultCode) -> bool {
    matches!(
        code,
        ResultCode::ParameterError
            | ResultCode::AlwaysForbidden
            | ResultCode::BinTypeError
            | ResultCode::BinNameTooLong
            | ResultCode::RecordTooBig
            | ResultCode::UnsupportedFeature
            | ResultCode::EnterpriseOnly
            | ResultCode::InvalidNamespace
            | ResultCode::InvalidEncoding
            | ResultCode::OpNotApplicable
            | ResultCode::InvalidCommand
            | ResultCode::InvalidField
            | ResultCode::NotAuthenticated
            | ResultCode::RoleViolation
            | ResultCode::NotAllowlisted
            | ResultCode::BatchDisabled
            | ResultCode::BatchMaxRequestsExceeded
            | ResultCode::IndexNameMaxLen
            | ResultCode::IndexMaxCount
    )
}

/// The server's or the client's error in the port's terms.
pub(crate) fn failed(action: &str, error: aerospike::Error) -> Error {
    use Retryability::{Indeterminate, Permanent, Transient};
    let (retryability, hint) = match (error.server_result_code(), error.kind()) {
        (
            Some(
                ResultCode::DeviceOverload
                | ResultCode::BatchQueuesFull
                | ResultCode::QueryQueueFull,
            ),
            _,
        ) => (Transient, "a node has more to do than it can"),
        (Some(ResultCode::KeyBusy), _) => (Transient, "too many want one record"),
        (Some(ResultCode::ServerMemError), _) => (
            Transient,
            "a node has no room left; add nodes or memory, or prune",
        ),
        (Some(ResultCode::FailForbidden), _) => (
            Transient,
            "a node refuses writes: its namespace or the set is full, or the nodes' clocks differ",
        ),
        (Some(ResultCode::PartitionUnavailable), _) => {
            (Transient, "too few nodes are there for a part of the data")
        }
        (
            Some(
                ResultCode::SecurityNotSupported
                | ResultCode::SecurityNotEnabled
                | ResultCode::SecuritySchemeNotSupported,
            ),
            _,
        ) => (
            Permanent,
            "the server knows no users: Community Edition has none; leave user and password out",
        ),
        (
            Some(
                ResultCode::InvalidUser
                | ResultCode::InvalidPassword
                | ResultCode::ExpiredPassword
                | ResultCode::InvalidCredential
                | ResultCode::NotAuthenticated,
            ),
            _,
        ) => (Permanent, "the server refuses user or password"),
        (Some(ResultCode::RoleViolation), _) => (Permanent, "the user lacks rights"),
        (Some(ResultCode::EnterpriseOnly | ResultCode::UnsupportedFeature), _) => {
            (Permanent, "Community Edition does not do that")
        }
        (Some(ResultCode::InvalidNamespace), _) | (_, ErrorKind::InvalidNamespace) => (
            Permanent,
            "there is no such namespace; it is made in the server's configuration",
        ),
        (Some(ResultCode::IndexNotFound | ResultCode::IndexNotReadable), _) => (
            Transient,
            "a node has not built its indexes yet; if that lasts, open the store again, which makes them",
        ),
        (Some(ResultCode::RecordTooBig), _) => (
            Permanent,
            "a record is larger than the namespace allows; 1 MiB are needed",
        ),
        (_, ErrorKind::InvalidArgument) => (Permanent, ""),
        _ if error.in_doubt() => (Indeterminate, ""),
        (Some(code), _) if is_permanent(code) => (Permanent, ""),
        (Some(_), _) => (Indeterminate, ""),
        (None, _) => (Transient, "no node answers"),
    };
    let action = match hint {
        "" => action.to_owned(),
        hint => format!("{action} ({hint})"),
    };
    Error::backend(BACKEND, action, retryability, error)
}
