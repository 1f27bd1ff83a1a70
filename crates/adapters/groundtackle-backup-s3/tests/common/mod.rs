//! A bucket of a server that all tests of a program share, with a way to it that can be disturbed.
#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use groundtackle_backup_s3::{S3TargetConfig, StaticCredentials, Tls};
use groundtackle_core::{ByteSize, RetryConfig};
use groundtackle_testkit_servers::{Moto, Proxy, Way};

/// Sent with each request, and to be seen nowhere.
pub(crate) const SECRET: &str = "ke3pItT0y0urs3lf";

static SERVER: LazyLock<Moto> = LazyLock::new(Moto::start);

pub(crate) fn missing() -> Option<String> {
    static IS_THERE: LazyLock<bool> = LazyLock::new(Moto::is_there);
    let reason = "there is no Python with moto[server]: set GROUNDTACKLE_TEST_MOTO, or run .ci/test, which installs it";
    (!*IS_THERE).then(|| reason.to_owned())
}

pub(crate) fn server() -> &'static Moto {
    &SERVER
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) proxy: Proxy,
    stalled: Arc<AtomicBool>,
}

impl Place {
    pub(crate) fn new(object_lock: bool) -> Self {
        Self {
            bucket: SERVER.bucket(object_lock),
            proxy: Proxy::to(SERVER.port()),
            stalled: Arc::default(),
        }
    }

    /// Takes conditions away on the way: as servers do that accept and ignore them.
    pub(crate) fn ignore_conditions(&self) {
        self.proxy.rewrite(|way, bytes| {
            let mut bytes = bytes.to_vec();
            if way == Way::Request {
                replace(&mut bytes, b"if-none-match:", b"x-none-match_:");
                replace(&mut bytes, b"if-match:", b"x-match_:");
            }
            bytes
        });
    }

    /// Lets nothing through and nothing break.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Release);
        let flag = self.stalled.clone();
        self.proxy.rewrite(move |_, bytes| {
            while flag.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
            }
            bytes.to_vec()
        });
    }

    pub(crate) fn config(&self) -> S3TargetConfig {
        let retry = RetryConfig::default()
            .with_max_attempts(6)
            .with_initial_delay(Duration::from_millis(5))
            .with_max_delay(Duration::from_millis(50));
        S3TargetConfig::new(&self.bucket)
            .with_prefix("backups/main/".into())
            .with_endpoint(Some(format!("http://127.0.0.1:{}", self.proxy.port())))
            .with_path_style(true)
            .with_tls(Tls::Off)
            .with_credentials(Some(StaticCredentials::new("AKIDEXAMPLE", SECRET)))
            .with_part_size(ByteSize::mib(5))
            .with_parts_in_flight(3)
            .with_answer_timeout(Duration::from_secs(20))
            .with_retry(retry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stalled.store(false, Ordering::Release);
    }
}

/// Regardless of upper and lower case.
pub(crate) fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let Some(length) = bytes.len().checked_sub(from.len()) else {
        return;
    };
    for at in 0..=length {
        let found = bytes.get_mut(at..at + from.len());
        if let Some(found) = found.filter(|found| found.eq_ignore_ascii_case(from)) {
            found.copy_from_slice(to);
        }
    }
}
