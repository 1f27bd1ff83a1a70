//! Cases for notifiers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_health_check::{
    Cause, Error, Message, Name, News, Notifier, Outcome, Retryability, Severity,
};
use tokio::time::timeout;

use crate::{LONG, runtime};

/// What the author of a notifier tells the kit.
#[async_trait]
pub trait NotifierHarness: Send + Sync + 'static {
    /// The notifier, to somewhere that works.
    async fn notifier(&self) -> Arc<dyn Notifier>;

    /// The texts that have arrived, oldest first.
    async fn received(&self) -> Vec<String>;

    /// Makes the place where messages go to refuse them, or take them again.
    async fn refuse(&self, refuse: bool);

    /// Secrets that the notifier was given: none of them may be seen.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes a `#[test]` of every case for notifiers, against a [`NotifierHarness`] that an expression makes anew for each.
#[macro_export]
macro_rules! notifier_conformance {
    ($harness:expr $(,)?) => {
        $crate::__notifier_conformance! { $harness;
            a_message_arrives_once,
            every_item_is_told,
            long_messages_arrive,
            what_is_refused_is_an_error,
            no_secret_is_told,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __notifier_conformance {
    ($harness:expr; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run_notifier($harness, stringify!($case));
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!($crate::notifier_cases().collect::<Vec<_>>(), [$(stringify!($case)),*]);
        }
    };
}

type Run = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const CASES: &[(&str, Run)] = &[
    ("a_message_arrives_once", |s| {
        Box::pin(a_message_arrives_once(s))
    }),
    ("every_item_is_told", |s| Box::pin(every_item_is_told(s))),
    ("long_messages_arrive", |s| {
        Box::pin(long_messages_arrive(s))
    }),
    ("what_is_refused_is_an_error", |s| {
        Box::pin(what_is_refused_is_an_error(s))
    }),
    ("no_secret_is_told", |s| Box::pin(no_secret_is_told(s))),
];

/// The names of all cases for notifiers.
pub fn notifier_cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs one case by its name, in a runtime of its own.
///
/// # Panics
/// When the notifier breaks the promise, or there is no such case.
pub fn run_notifier(harness: impl NotifierHarness, name: &str) {
    let (_, case) = CASES
        .iter()
        .find(|case| case.0 == name)
        .expect("a case of this name");
    runtime().block_on(async {
        let notifier = harness.notifier().await;
        let harness = Box::new(harness);
        case(&Subject { harness, notifier }).await;
    });
}

struct Subject {
    harness: Box<dyn NotifierHarness>,
    notifier: Arc<dyn Notifier>,
}

impl Subject {
    async fn send(&self, message: &Message) -> Result<(), Error> {
        timeout(LONG, self.notifier.notify(message))
            .await
            .expect("it ends")
    }

    async fn deliver(&self, message: &Message) -> Vec<String> {
        self.send(message).await.expect("the place takes it");
        self.harness.received().await
    }
}

fn down(name: &str, detail: &str) -> News {
    News::Check {
        name: Name::try_from(name).expect("a name"),
        outcome: Outcome::Fail,
        cause: Cause::new("refused"),
        detail: Some(detail.into()),
        since_unix_millis: 1_767_225_600_000,
        hides: 3,
    }
}

/// "Delivers one message."
async fn a_message_arrives_once(subject: &Subject) {
    let message = Message::new(vec![down("a database", "nobody listens")], 0);
    assert_eq!(subject.deliver(&message).await.len(), 1);
}

/// "All of it": each name is there, of checks and of alerts.
async fn every_item_is_told(subject: &Subject) {
    let alert = News::Alert {
        objective: Name::try_from("99.9 % of the month").expect("a name"),
        severity: Severity::Page,
        long_secs: 3600,
        firing: true,
    };
    let message = Message::new(vec![down("first", "one"), down("second", "two"), alert], 4);
    let told = subject.deliver(&message).await.concat();
    for part in ["first", "second", "99.9 % of the month"] {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
}

/// "At most `max_items`", with the longest names and details: limits of the place are kept, and every name arrives.
async fn long_messages_arrive(subject: &Subject) {
    let name = |n: usize| format!("{n:02}{}", "x".repeat(Name::MAX_BYTES - 2));
    let items = (0..20)
        .map(|n| down(&name(n), &"long ".repeat(200)))
        .collect();
    let told = subject.deliver(&Message::new(items, 0)).await.concat();
    for n in 0..20 {
        assert!(told.contains(&name(n)), "item {n} is missing");
    }
}

/// "`Notify`": what does not arrive is no success, and arrives later.
async fn what_is_refused_is_an_error(subject: &Subject) {
    let message = Message::new(vec![down("a database", "nobody listens")], 0);
    subject.harness.refuse(true).await;
    let error = subject.send(&message).await.expect_err("it is refused");
    assert!(matches!(error, Error::Notify { .. }), "{error:?}");
    subject.harness.refuse(false).await;
    if error.retryability() != Retryability::Permanent {
        assert!(!subject.deliver(&message).await.is_empty());
    }
}

/// Secrets are in no message, no error, and not in what it prints.
async fn no_secret_is_told(subject: &Subject) {
    let message = Message::new(vec![down("a database", "nobody listens")], 0);
    let mut seen = subject.deliver(&message).await.concat();
    subject.harness.refuse(true).await;
    let error = subject.send(&message).await.expect_err("it is refused");
    seen += &format!("{error:?} {:?}", subject.notifier);
    for secret in subject.harness.secrets() {
        assert!(!seen.contains(&secret), "a secret is seen");
    }
}
