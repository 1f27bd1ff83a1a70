//! What goes wrong between the adapter and a server: answers that are lost, servers that go away, locks and deletions behind
//! its back, secrets.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod common;

use std::error::Error as StdError;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Place, SECRET};
use groundtackle_backup::{Error, ObjectKey, PutIf, Refused, Retryability, Target};
use groundtackle_backup_s3::{
    Checksum, Retention, S3Target, S3TargetConfig, StaticCredentials, Tls,
};
use groundtackle_backup_testkit::content;
use groundtackle_core::{ByteSize, RetryConfig};
use groundtackle_testkit_servers::Way;

/// A place, or that there is none.
fn place(test: &str, object_lock: bool) -> Option<Place> {
    if let Some(reason) = common::missing() {
        writeln!(std::io::stderr(), "skipped: {test}: {reason}").expect("standard error is open");
        return None;
    }
    Some(Place::new(object_lock))
}

fn key(text: &str) -> ObjectKey {
    text.try_into().unwrap()
}

fn retry(attempts: u32) -> RetryConfig {
    RetryConfig::default()
        .with_max_attempts(attempts)
        .with_initial_delay(Duration::from_millis(2))
        .with_max_delay(Duration::from_millis(20))
}

/// All that an error says.
fn said(error: &dyn StdError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// The answer to a put is lost: the next attempt is refused by the condition, and a look finds our own.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_by_looking() {
    let Some(place) = place("a_lost_answer_is_settled_by_looking", false) else {
        return;
    };
    let target = S3Target::open(place.config()).await.unwrap();
    let body = content(1, 0..1_000);
    place.proxy.lose_answer_after(0);
    let put = target
        .put(&key("object"), body.clone(), &PutIf::Absent, None)
        .await;
    let info = put.unwrap().unwrap();
    assert_eq!(place.proxy.answers_lost(), 1);
    assert_eq!(
        target.info(&key("object")).await.unwrap(),
        Some(info.clone())
    );
    place.proxy.lose_answer_after(0);
    let unchanged = PutIf::Unchanged(info.tag);
    let put = target
        .put(&key("object"), content(2, 0..1_000), &unchanged, None)
        .await;
    put.unwrap().unwrap();
    assert_eq!(place.proxy.answers_lost(), 2);
    // What was there before is no success.
    place.proxy.lose_answer_after(0);
    let put = target.put(&key("object"), body, &PutIf::Absent, None).await;
    match put {
        Ok(Err(Refused::Exists { .. })) => {}
        Err(error) => assert_eq!(error.retryability(), Retryability::Indeterminate),
        other => panic!("{other:?}"),
    }
    // The same at the end of an upload, and of everything else.
    let mut upload = target.upload(&key("large"), None).await.unwrap();
    upload.write(content(3, 0..11 << 20)).await.unwrap();
    place.proxy.lose_answer_with(b"CompleteMultipartUpload");
    upload.finish().await.unwrap().unwrap();
    assert_eq!(place.proxy.answers_lost(), 4);
    place.proxy.lose_answer_after(0);
    target.remove(&key("large")).await.unwrap().unwrap();
    place.proxy.lose_answer_after(0);
    assert_eq!(target.list("", None, 10).await.unwrap().objects.len(), 1);
    assert_eq!(place.proxy.answers_lost(), 6);
}

/// Without a further attempt the outcome is unknown, and said to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_without_a_retry_is_indeterminate() {
    let Some(place) = place("a_lost_answer_without_a_retry_is_indeterminate", false) else {
        return;
    };
    let target = S3Target::open(place.config().with_retry(retry(1)))
        .await
        .unwrap();
    place.proxy.lose_answer_after(0);
    let put = target
        .put(&key("object"), Bytes::from("x"), &PutIf::Absent, None)
        .await;
    let error = put.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
    assert!(said(&error).contains("put object") && !said(&error).contains(SECRET));
    assert!(target.info(&key("object")).await.unwrap().is_some());
    place.proxy.lose_answer_after(0);
    let error = target.info(&key("object")).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Transient,
        "a read changes nothing"
    );
}

/// The server goes away in the middle of an upload: an error, nothing is seen, and it can be done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_mid_upload() {
    let Some(place) = place("a_server_that_goes_away_mid_upload", false) else {
        return;
    };
    let target = S3Target::open(place.config().with_retry(retry(3)))
        .await
        .unwrap();
    let mut upload = target.upload(&key("object"), None).await.unwrap();
    upload.write(content(1, 0..16 << 20)).await.unwrap();
    place.proxy.cut(true);
    let mut failed = None;
    for part in 16..40_u64 {
        if let Err(error) = upload.write(content(1, part << 20..(part + 1) << 20)).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("nobody takes it");
    assert!(!said(&error).contains(SECRET), "{error:?}");
    assert!(upload.write(Bytes::from("more")).await.is_err());
    assert!(upload.finish().await.is_err());
    place.proxy.cut(false);
    assert_eq!(target.info(&key("object")).await.unwrap(), None);
    assert_eq!(target.list("", None, 10).await.unwrap().objects, []);
    let soon = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(target.remove_unfinished(soon).await.unwrap(), 1);
    // A short absence is bridged by retries.
    let target = S3Target::open(place.config().with_retry(retry(50)))
        .await
        .unwrap();
    let mut upload = target.upload(&key("object"), None).await.unwrap();
    upload.write(content(2, 0..11 << 20)).await.unwrap();
    place.proxy.cut(true);
    let (written, ()) = tokio::join!(upload.write(content(2, 11 << 20..21 << 20)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        place.proxy.cut(false);
    });
    written.unwrap();
    let info = upload.finish().await.unwrap().unwrap();
    assert_eq!(info.bytes, 21 << 20);
    let read = target.read(&key("object"), 0..21 << 20).await.unwrap();
    assert!(read == Some(content(2, 0..21 << 20)));
}

/// A server that ignores conditions is found out.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_conditions_is_found_out() {
    let Some(place) = place("a_server_that_ignores_conditions_is_found_out", false) else {
        return;
    };
    let target = S3Target::open(place.config()).await.unwrap();
    assert!(target.capabilities().conditional_put);
    place.ignore_conditions();
    let target = S3Target::open(place.config()).await.unwrap();
    assert!(!target.capabilities().conditional_put);
    // Nothing of the probes is left, nor seen.
    let left = common::server().request("GET", &format!("/{}?versions", place.bucket), &[], "");
    assert!(
        left.contains("ListVersionsResult") && !left.contains("probe"),
        "{left}"
    );
}

/// A mark that somebody deleted a locked object hides nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_marker_hides_nothing() {
    let Some(place) = place("a_delete_marker_hides_nothing", true) else {
        return;
    };
    let config = place.config().with_object_lock(Some(Retention::Compliance));
    let target = S3Target::open(config).await.unwrap();
    let until = SystemTime::now() + Duration::from_secs(3600);
    let body = content(1, 0..1_000);
    let put = target
        .put(&key("object"), body.clone(), &PutIf::Absent, Some(until))
        .await;
    let info = put.unwrap().unwrap();
    let deleted = common::server().request(
        "DELETE",
        &format!("/{}/backups/main/object", place.bucket),
        &[],
        "",
    );
    assert!(deleted.contains("x-amz-delete-marker: true"), "{deleted}");
    assert_eq!(
        target.info(&key("object")).await.unwrap(),
        Some(info.clone())
    );
    assert_eq!(
        target.read(&key("object"), 0..1_000).await.unwrap(),
        Some(body.clone())
    );
    assert_eq!(target.list("", None, 10).await.unwrap().objects, [info]);
    let exists = Err(Refused::Exists { key: key("object") });
    let put = target
        .put(&key("object"), Bytes::from("other"), &PutIf::Absent, None)
        .await;
    assert_eq!(put.unwrap(), exists);
    let mut upload = target.upload(&key("object"), None).await.unwrap();
    upload.write(content(2, 0..6 << 20)).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), exists);
    let locked = Err(Refused::Locked { key: key("object") });
    assert_eq!(target.remove(&key("object")).await.unwrap(), locked);
    assert_eq!(
        target.read(&key("object"), 0..1_000).await.unwrap(),
        Some(body)
    );
}

/// What is removed is gone with all its versions, and nobody's mark that it was deleted stays.
#[tokio::test(flavor = "multi_thread")]
async fn all_versions_go() {
    let Some(place) = place("all_versions_go", false) else {
        return;
    };
    common::server().keep_versions(&place.bucket);
    let target = S3Target::open(place.config()).await.unwrap();
    assert!(target.capabilities().conditional_put && !target.capabilities().object_lock);
    let (lease, lasting) = (key("lease"), key("lease-2"));
    let mut condition = PutIf::Absent;
    for number in 0..3 {
        let put = target
            .put(&lease, content(number, 0..10), &condition, None)
            .await;
        condition = PutIf::Unchanged(put.unwrap().unwrap().tag);
    }
    let put = target
        .put(&lasting, Bytes::from("x"), &PutIf::Absent, None)
        .await;
    put.unwrap().unwrap();
    let versions =
        || common::server().request("GET", &format!("/{}?versions", place.bucket), &[], "");
    assert_eq!(versions().matches("main/lease</Key>").count(), 3);
    assert_eq!(target.list("", None, 10).await.unwrap().objects.len(), 2);
    target.remove(&lease).await.unwrap().unwrap();
    assert_eq!(target.info(&lease).await.unwrap(), None);
    let left = versions();
    assert!(
        !left.contains("main/lease</Key>") && left.contains("main/lease-2</Key>"),
        "{left}"
    );
}

/// A bit that is another one when an object is read: an error, and never other bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_the_way_is_found() {
    let Some(place) = place("a_flipped_bit_on_the_way_is_found", false) else {
        return;
    };
    for checksum in [Checksum::Crc32c, Checksum::Sha256] {
        let config = place.config().with_retry(retry(2));
        let target = S3Target::open(config.with_checksum(checksum))
            .await
            .unwrap();
        let name = key(&format!("{checksum:?}").to_lowercase());
        let body = Bytes::from_static(b"one two three");
        let put = target.put(&name, body.clone(), &PutIf::Absent, None).await;
        put.unwrap().unwrap();
        place.proxy.rewrite(|way, bytes| {
            let mut bytes = bytes.to_vec();
            if way == Way::Answer {
                common::replace(&mut bytes, b"one two three", b"one two thrEe");
            }
            bytes
        });
        let error = target.read(&name, 0..13).await.unwrap_err();
        assert!(said(&error).contains("checksum mismatch"), "{error:?}");
        place.proxy.rewrite(|_, bytes| bytes.to_vec());
        assert_eq!(target.read(&name, 0..13).await.unwrap(), Some(body));
    }
}

/// Throttling that lasts.
#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_overload() {
    let Some(place) = place("throttling_is_overload", false) else {
        return;
    };
    let target = S3Target::open(place.config().with_retry(retry(3)))
        .await
        .unwrap();
    place.proxy.rewrite(|way, bytes| match way {
        Way::Request => bytes.to_vec(),
        Way::Answer => {
            let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let length = body.len();
            format!("HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
        }
    });
    let put = target
        .put(&key("object"), Bytes::from("x"), &PutIf::Absent, None)
        .await;
    let error = put.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    let error = target.read(&key("object"), 0..1).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
}

/// Buckets and settings that can't be used say why.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused() {
    let Some(place) = place("what_cannot_work_is_refused", false) else {
        return;
    };
    let config = place.config();
    let https = Some("http://127.0.0.1:1".to_owned());
    for (config, word) in [
        (
            config.clone().with_tls(Tls::Verify).with_endpoint(https),
            "tls",
        ),
        (config.clone().with_prefix("backups".into()), "prefix"),
        (config.clone().with_part_size(ByteSize::mib(4)), "part_size"),
        (config.clone().with_parts_in_flight(0), "parts_in_flight"),
        (config.clone().with_kms_key(Some("key".into())), "kms"),
        (
            config.clone().with_object_lock(Some(Retention::Governance)),
            "object lock",
        ),
        (S3TargetConfig::default(), "bucket"),
    ] {
        let error = S3Target::open(config).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut missing = config;
    missing.bucket = "nowhere".into();
    let error = S3Target::open(missing).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Permanent, "{error:?}");
    assert!(said(&error).contains("nowhere"), "{error}");
}

/// No secret is seen in what a target, its settings or its errors print.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_not_seen() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let mut own = StaticCredentials::new("AKIDSECRETID", SECRET);
    own.session_token = Some("t0ken".into());
    let config = S3TargetConfig::new("bucket")
        .with_endpoint(Some(format!("http://127.0.0.1:{port}")))
        .with_tls(Tls::Off)
        .with_credentials(Some(own))
        .with_retry(retry(2));
    let error = S3Target::open(config.clone()).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Permanent,
        "a retry that gave up"
    );
    let mut texts = vec![said(&error), format!("{config:?} {config:#?}")];
    if let Some(place) = place("credentials_are_not_seen", false) {
        let target = S3Target::open(place.config()).await.unwrap();
        texts.push(format!("{target:?} {target:#?}"));
    }
    for text in texts {
        for secret in [SECRET, "AKIDSECRETID", "t0ken"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn settings_read_as_documented() {
    let json = r#"{ "bucket": "b", "prefix": "p/", "endpoint": "https://s3.example", "region": "r", "path_style": true,
        "credentials": { "access_key_id": "a", "secret_access_key": "s", "session_token": "t" }, "profile": "p",
        "assume_role": { "arn": "arn:aws:iam::1:role/r", "external_id": "e" }, "tls": "off", "tls_authorities": "/ca.pem",
        "encryption": "kms", "kms_key": "k", "storage_class": "STANDARD_IA", "object_lock": "compliance",
        "checksum": "sha256", "part_size": "8MiB", "parts_in_flight": 2, "connect_timeout": "1s",
        "answer_timeout": "10s", "retry": { "max_attempts": 2 } }"#;
    let read: S3TargetConfig = serde_json::from_str(json).unwrap();
    assert_eq!(read.object_lock, Some(Retention::Compliance));
    assert_eq!(read.assume_role.unwrap().session_name, "groundtackle");
    assert_eq!(read.part_size, ByteSize::mib(8));
    assert_eq!(
        serde_json::from_str::<S3TargetConfig>("{}").unwrap(),
        S3TargetConfig::default()
    );
    assert!(serde_json::from_str::<S3TargetConfig>(r#"{ "buckets": "b" }"#).is_err());
    // The README lists each key.
    let readme = include_str!("../README.md");
    let keys: serde_json::Value = serde_json::from_str(json).unwrap();
    for key in keys.as_object().unwrap().keys() {
        assert!(readme.contains(&format!("| `{key}` |")), "{key}");
    }
}
