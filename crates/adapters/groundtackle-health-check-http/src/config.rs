use groundtackle_core::Secret;
use serde::Deserialize;

/// Who sees what, and how the page is headed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpHealthConfig {
    /// Whoever sends this as a bearer token is an operator. Empty: nobody becomes one by a token. Default empty.
    pub operator_token: Secret,
    /// Everybody who can connect is an operator: for a listener that strangers can't reach. Default false.
    pub all_are_operators: bool,
    /// The heading of the status page. Default `"Status"`.
    pub title: String,
}

impl Default for HttpHealthConfig {
    fn default() -> Self {
        Self {
            operator_token: Secret::default(),
            all_are_operators: false,
            title: "Status".into(),
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl HttpHealthConfig {
    setters! {
        with_operator_token operator_token: Secret,
        with_all_are_operators all_are_operators: bool,
        with_title title: String,
    }
}
