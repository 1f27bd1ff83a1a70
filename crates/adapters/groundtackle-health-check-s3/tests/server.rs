//! A server that is stopped, hung, restarted, and whose keys and rights change: moto, which verifies signatures.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use groundtackle_health_check::{Check, Observation, Outcome};
use groundtackle_health_check_client::{SecretSource, Tls};
use groundtackle_health_check_s3::{S3Check, S3CheckConfig, S3Credentials};
use groundtackle_health_check_testkit::{Faults, ServerHarness, Watched, skipped};
use groundtackle_testkit_servers::Moto;

const KEY: &str = "s3cr3t-acc355-k3y";
const BUCKET: &str = "canaries";
const ALL: [&str; 1] = ["s3:*"];

const PERIOD: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(2);

/// It comes back without anything.
const FAULTS: Faults<Moto> = Faults {
    stop: Moto::kill,
    start: |moto| {
        moto.restart();
        make_bucket(moto);
    },
    hang: |moto| moto.freeze(),
    resume: |moto| moto.thaw(),
};

/// A server with the bucket, or why there is none.
fn with_bucket() -> Result<Moto, String> {
    if !Moto::is_there() {
        return Err("there is no moto; GROUNDTACKLE_TEST_MOTO names its Python".into());
    }
    let moto = Moto::start();
    make_bucket(&moto);
    Ok(moto)
}

fn start(test: &str) -> Option<Moto> {
    with_bucket().map_err(|why| skipped(test, &why)).ok()
}

fn make_bucket(moto: &Moto) {
    let made = moto.request("PUT", &format!("/{BUCKET}"), &[], "");
    assert!(made.contains(" 200 "), "{made}");
}

/// Everybody is let in, and so is this key.
fn config(port: u16) -> S3CheckConfig {
    S3CheckConfig::new(BUCKET)
        .with_endpoint(Some(format!("http://127.0.0.1:{port}")))
        .with_path_style(true)
        .with_tls(Tls::Off)
        .with_credentials(Some(S3Credentials::new("id", KEY)))
}

fn of_user(moto: &Moto, name: &str, may: &[&str]) -> S3CheckConfig {
    let (id, key) = moto.user(name, may);
    let credentials = S3Credentials::new(id.as_str(), key.as_str());
    config(moto.port()).with_credentials(Some(credentials))
}

/// What the bucket has, markers of deletion and all.
fn what_is_left(moto: &Moto) -> Vec<String> {
    let list = moto.request("GET", &format!("/{BUCKET}?versions"), &[], "");
    assert!(list.contains(" 200 "), "{list}");
    let keys = list.split("<Key>").skip(1);
    keys.map(|key| key.split('<').next().unwrap().to_owned())
        .collect()
}

async fn look(config: S3CheckConfig) -> (Outcome, String) {
    let seen = S3Check::from(config).check().await;
    (seen.outcome, seen.cause.to_string())
}

fn told(outcome: Outcome, cause: &str) -> (Outcome, String) {
    (outcome, cause.to_owned())
}

fn server() -> ServerHarness<Moto> {
    let check = |moto: &Moto| -> Arc<dyn Check> { Arc::new(S3Check::from(config(moto.port()))) };
    ServerHarness::new(with_bucket(), FAULTS, check).with_secret(KEY)
}

groundtackle_health_check_testkit::check_conformance!(server());

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_server_is_seen_in_time_and_passes() {
    let Some(mut moto) = start("what happens to the server") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (id_file, key_file) = (folder.path().join("id"), folder.path().join("key"));
    let write = |(id, key): &(String, String)| {
        fs::write(&id_file, id).unwrap();
        fs::write(&key_file, key).unwrap();
    };
    write(&moto.user("canary", &ALL));
    let credentials = S3Credentials::new(
        SecretSource::File(id_file.clone()),
        SecretSource::File(key_file.clone()),
    );
    let config = config(moto.port()).with_credentials(Some(credentials));
    let check = S3Check::from(config.with_answer_timeout(Duration::from_millis(1_500)));
    let watched = Watched::start(check, PERIOD, TIMEOUT);
    watched.rounds(&mut moto, &FAULTS, "refused").await;
    let another = moto.user("canary", &ALL);
    write(&moto.user("canary", &ALL));
    moto.check_logins(true);
    watched.until(Outcome::Pass, "ok").await;
    // Half of a new key is a wrong one.
    fs::write(&key_file, &another.1).unwrap();
    watched.until(Outcome::Fail, "login-refused").await;
    write(&another);
    watched.until(Outcome::Pass, "ok").await;
    fs::remove_file(&key_file).unwrap();
    watched.until(Outcome::Fail, "secret-unreadable").await;
    write(&another);
    watched.until(Outcome::Pass, "ok").await;
    moto.kill();
    watched.until(Outcome::Fail, "refused").await;
    // It comes back without anything, and learns what S3 is with its first request.
    moto.restart();
    moto.request("GET", "/nothing", &[], "");
    watched.until(Outcome::Fail, "no-bucket").await;
    make_bucket(&moto);
    watched.until(Outcome::Pass, "ok").await;
    watched.stop().await;
}

#[tokio::test]
async fn no_other_key_is_touched_and_nothing_is_left() {
    let Some(moto) = start("no other key is touched") else {
        return;
    };
    let others = [
        "groundtackle-health-check/",
        "groundtackle-health-check/other",
        "groundtackle-health-check/00000000000000000000000000000000",
        "other",
    ];
    for other in others {
        moto.request("PUT", &format!("/{BUCKET}/{other}"), &[], "theirs");
    }
    let mut expected = others.map(str::to_owned).to_vec();
    expected.sort();
    for versions in [false, true] {
        if versions {
            moto.keep_versions(BUCKET);
        }
        let check = S3Check::from(config(moto.port()));
        for _ in 0..3 {
            assert_eq!(check.check().await, Observation::pass());
            let mut left = what_is_left(&moto);
            left.sort();
            assert_eq!(left, expected, "versions: {versions}");
        }
    }
    for other in others {
        let got = moto.request("GET", &format!("/{BUCKET}/{other}"), &[], "");
        assert!(got.ends_with("theirs"), "{got}");
    }
}

/// Dropped anywhere on the way, the canary goes in the background; the next run waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cut_off_leaves_nothing_behind() {
    let Some(moto) = start("a run that is cut off") else {
        return;
    };
    let check = S3Check::from(config(moto.port()));
    let begun = Instant::now();
    assert_eq!(check.check().await, Observation::pass());
    let whole = begun.elapsed();
    let mut cut_off = 0;
    for part in 0..60 {
        let after = whole.mul_f64(f64::from(part) / 50.0);
        let run = tokio::time::timeout(after, check.check()).await;
        cut_off += u32::from(run.is_err());
    }
    assert!(cut_off > 10, "{cut_off}");
    assert_eq!(check.check().await, Observation::pass());
    assert_eq!(what_is_left(&moto), Vec::<String>::new());
}

#[tokio::test]
async fn rights_are_told_apart_and_what_cannot_be_read_is_deleted() {
    let Some(moto) = start("rights are told apart") else {
        return;
    };
    let put_only = of_user(&moto, "puts", &["s3:PutObject", "s3:DeleteObject"]);
    let never_puts = of_user(&moto, "reads", &["s3:GetObject", "s3:DeleteObject"]);
    let never_deletes = of_user(&moto, "keeps", &["s3:PutObject", "s3:GetObject"]);
    let nobody = config(moto.port());
    moto.check_logins(true);
    assert_eq!(look(put_only).await, told(Outcome::Fail, "denied"));
    assert_eq!(look(never_puts).await, told(Outcome::Fail, "denied"));
    assert_eq!(look(nobody).await, told(Outcome::Fail, "login-refused"));
    moto.check_logins(false);
    assert_eq!(what_is_left(&moto), Vec::<String>::new());
    moto.check_logins(true);
    assert_eq!(
        look(never_deletes).await,
        told(Outcome::Warn, "not-deleted")
    );
    moto.check_logins(false);
    assert_eq!(what_is_left(&moto).len(), 1);
    let gone = config(moto.port()).with_bucket("nothing".into());
    assert_eq!(look(gone).await, told(Outcome::Fail, "no-bucket"));
    let slow = config(moto.port()).with_warn_slower_than(Some(Duration::ZERO));
    assert_eq!(look(slow).await, told(Outcome::Warn, "slow"));
}

/// Set in a process of its own, whose environment is the test's.
const CHILD: &str = "GROUNDTACKLE_TEST_S3_CHAIN";

#[test]
fn what_the_chain_finds_is_read_anew_each_time() {
    if let Ok(port) = std::env::var(CHILD) {
        return child(port.parse().unwrap());
    }
    let Some(moto) = start("what the chain finds") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (moto.user("canary", &ALL), moto.user("canary", &ALL));
    for (name, (id, key)) in [
        ("first", first),
        ("second", second),
        ("wrong", ("AKIA".into(), KEY.into())),
    ] {
        let text = format!("[canary]\naws_access_key_id = {id}\naws_secret_access_key = {key}\n");
        fs::write(folder.path().join(name), text).unwrap();
    }
    moto.check_logins(true);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "what_the_chain_finds_is_read_anew_each_time",
        "--nocapture",
    ]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        child.env_remove(name);
    }
    let done = child
        .env(CHILD, moto.port().to_string())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", folder.path().join("none"))
        .env("AWS_SHARED_CREDENTIALS_FILE", folder.path().join("now"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let says = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{says}");
    assert!(!says.contains(KEY), "{says}");
}

fn child(port: u16) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = config(port)
            .with_credentials(None)
            .with_profile(Some("canary".into()));
        let check = S3Check::from(config);
        for (file, outcome, cause) in [
            ("nothing", Outcome::Fail, "no-credentials"),
            ("first", Outcome::Pass, "ok"),
            ("second", Outcome::Pass, "ok"),
            ("wrong", Outcome::Fail, "login-refused"),
            ("first", Outcome::Pass, "ok"),
        ] {
            if Path::new(file).exists() {
                fs::copy(file, "now").unwrap();
            }
            let seen = check.check().await;
            assert_eq!(
                (seen.outcome, seen.cause.as_str()),
                (outcome, cause),
                "{file}: {seen:?}"
            );
        }
    });
}

#[test]
fn a_config_that_cannot_be_used_is_refused() {
    let read = |text: &str| toml::from_str::<S3CheckConfig>(text);
    let text = "bucket = 'b'\ntls = 'off'\nanswer_timeout = '1s'\n[credentials]\naccess_key_id = 'id'\nsecret_access_key = { file = '/key' }";
    let same = S3CheckConfig::new("b")
        .with_tls(Tls::Off)
        .with_answer_timeout(Duration::from_secs(1))
        .with_credentials(Some(S3Credentials::new(
            "id",
            SecretSource::File("/key".into()),
        )));
    assert_eq!(read(text).unwrap(), same);
    for (text, says) in [
        ("tls = 'off'\nbucket = ''", "line 2"),
        (&format!("prefix = '{}'", "x".repeat(513)), "512 bytes"),
        ("nonsense = 1", "nonsense"),
        (
            "credentials = { access_key_id = 'id', secret = 'pa55' }",
            "secret_access_key",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[tokio::test]
async fn nothing_goes_in_the_clear_unasked() {
    for config in [
        config(1).with_tls(Tls::Verify),
        config(1).with_bucket(String::new()),
    ] {
        assert_eq!(look(config).await, told(Outcome::Fail, "bad-config"));
    }
}
