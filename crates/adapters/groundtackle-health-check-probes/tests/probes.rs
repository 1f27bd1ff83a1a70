//! What each probe finds in what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test asserts")]

mod servers;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use groundtackle_core::ByteSize;
use groundtackle_health_check::{Check, Error, HealthConfig, Observation, Outcome};
use groundtackle_health_check_probes::{
    ClockProbe, CommandProbe, DiskProbe, Probe, ProbeCheck, TlsProbe,
};
use groundtackle_testkit_servers::{Certificates, Dnsmasq};
use servers::{Act, Server, Time, TimeServer, answer};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

async fn look(probe: Probe) -> Observation {
    timeout(LONG, ProbeCheck::from(probe).check())
        .await
        .unwrap()
}

/// The probe that a line of a config says.
fn read(probe: &str) -> Probe {
    let text = format!("[[checks]]\nname = \"a\"\nkind = \"readiness\"\nprobe.{probe}\n");
    let mut config: HealthConfig<Probe> = HealthConfig::from_toml("health.toml", &text).unwrap();
    config.checks.remove(0).probe
}

async fn assert_seen(probe: Probe, outcome: Outcome, cause: &str) -> String {
    let what = format!("{probe:?}");
    let seen = look(probe).await;
    assert_eq!(
        (seen.outcome, seen.cause.as_str()),
        (outcome, cause),
        "{what}: {seen:?}"
    );
    seen.detail.unwrap_or_default().to_string()
}

#[tokio::test]
async fn answers_over_http_are_what_they_must_be() {
    let body = r#"{"status": "ok", "peers": 8, "tip": {"height": 840000.0}, "none": null}"#;
    let server = Server::start(answer("200 OK\r\nX-Kind: json\r\nX-Kind: more", body));
    let address = server.address;
    for (more, outcome, cause) in [
        ("", Outcome::Pass, "ok"),
        ("expect_status = [200, 204]", Outcome::Pass, "ok"),
        ("expect_status = [204]", Outcome::Fail, "status"),
        (
            "expect_headers = { X-Kind = \"more\" }",
            Outcome::Pass,
            "ok",
        ),
        (
            "expect_headers = { x-kind = \"other\" }",
            Outcome::Fail,
            "header",
        ),
        (
            "expect_headers = { x-none = \"\" }",
            Outcome::Fail,
            "header",
        ),
        ("expect_body = [\"peers\", \"tip\"]", Outcome::Pass, "ok"),
        (
            "expect_body = [\"peers\", \"absent\"]",
            Outcome::Fail,
            "body",
        ),
        (
            "expect_json = [{ pointer = \"/status\", equals = \"ok\" }, { pointer = \"/peers\", at_least = 8, at_most = 8 }]",
            Outcome::Pass,
            "ok",
        ),
        (
            "expect_json = [{ pointer = \"/tip/height\", equals = 840000 }, { pointer = \"\" }]",
            Outcome::Pass,
            "ok",
        ),
        (
            "expect_json = [{ pointer = \"/tip\", equals = { height = 840000.0 } }]",
            Outcome::Pass,
            "ok",
        ),
        (
            "expect_json = [{ pointer = \"/status\", equals = \"no\" }]",
            Outcome::Fail,
            "json",
        ),
        (
            "expect_json = [{ pointer = \"/peers\", at_least = 9 }]",
            Outcome::Fail,
            "json",
        ),
        (
            "expect_json = [{ pointer = \"/peers\", at_most = 7.5 }]",
            Outcome::Fail,
            "json",
        ),
        (
            "expect_json = [{ pointer = \"/status\", at_least = 0 }]",
            Outcome::Fail,
            "json",
        ),
        (
            "expect_json = [{ pointer = \"/absent\" }]",
            Outcome::Fail,
            "json",
        ),
        (
            "expect_json = [{ pointer = \"/none\" }]",
            Outcome::Fail,
            "json",
        ),
        ("max_answer = \"8B\"", Outcome::Fail, "answer-too-large"),
        ("warn_slower_than = \"1ns\"", Outcome::Warn, "slow"),
        ("warn_slower_than = \"1h\"", Outcome::Pass, "ok"),
    ] {
        let comma = if more.is_empty() { "" } else { ", " };
        let probe = read(&format!(
            "http = {{ url = \"http://{address}/a?key=k3y\"{comma}{more} }}"
        ));
        let detail = assert_seen(probe, outcome, cause).await;
        assert!(!detail.contains("k3y"), "{detail}");
    }
    for (act, cause) in [
        (answer("302 Found\r\nLocation: /elsewhere", ""), "status"),
        (answer("200 OK", "no json"), "no-json"),
        (
            Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nless".to_vec()),
            "no-http",
        ),
    ] {
        server.act(act);
        let probe = format!(
            "http = {{ url = \"http://{address}/\", expect_json = [{{ pointer = \"\" }}] }}"
        );
        assert_seen(read(&probe), Outcome::Fail, cause).await;
    }
    // It has a length, and no body.
    server.act(Act::Answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n".to_vec(),
    ));
    let probe = format!("http = {{ url = \"http://{address}/\", method = \"head\" }}");
    assert_seen(read(&probe), Outcome::Pass, "ok").await;
}

#[tokio::test]
async fn answers_over_https_need_a_good_certificate() {
    let certificates = Certificates::new();
    let Act::Answer(fine) = answer("200 OK", "fine") else {
        panic!()
    };
    let server = Server::start(Act::Sealed(certificates.server_and_key(), fine));
    let port = server.address.port();
    let authority = certificates.authority();
    for (host, authorities, outcome, cause) in [
        ("127.0.0.1", authority.as_path(), Outcome::Pass, "ok"),
        (
            "localhost",
            authority.as_path(),
            Outcome::Fail,
            "certificate-wrong-name",
        ),
        (
            "127.0.0.1",
            Path::new("/nowhere.pem"),
            Outcome::Fail,
            "authorities-unusable",
        ),
    ] {
        let authorities = authorities.display();
        let probe = format!(
            "http = {{ url = \"https://{host}:{port}/\", authorities = \"{authorities}\" }}"
        );
        assert_seen(read(&probe), outcome, cause).await;
    }
}

#[tokio::test]
async fn certificates_are_judged_by_what_is_shown() {
    let certificates = Certificates::new();
    let server = Server::start(Act::Hang);
    let (pass, warn, fail) = (Outcome::Pass, Outcome::Warn, Outcome::Fail);
    // Days that leaf and intermediate begin and end in, what is seen of a verified chain, and of the times alone.
    for (leaf, between, verified, times) in [
        ((-1, 60), (-9, 90), (pass, "ok"), (pass, "ok")),
        (
            (-1, 14),
            (-9, 90),
            (warn, "certificate-expires"),
            (warn, "certificate-expires"),
        ),
        (
            (-1, 3),
            (-9, 90),
            (fail, "certificate-expires"),
            (fail, "certificate-expires"),
        ),
        // What a client needs besides ends first.
        (
            (-1, 60),
            (-9, 14),
            (warn, "certificate-expires"),
            (warn, "certificate-expires"),
        ),
        (
            (-1, 60),
            (-9, 3),
            (fail, "certificate-expires"),
            (fail, "certificate-expires"),
        ),
        (
            (-9, -1),
            (-9, 90),
            (fail, "certificate-expired"),
            (fail, "certificate-expired"),
        ),
        (
            (-1, 60),
            (-9, -1),
            (fail, "certificate-expired"),
            (fail, "certificate-expired"),
        ),
        (
            (2, 60),
            (-9, 90),
            (fail, "certificate-not-yet-valid"),
            (fail, "certificate-not-yet-valid"),
        ),
    ] {
        server.act(Act::Sealed(certificates.chain(leaf, between), Vec::new()));
        let mut probe = TlsProbe::new(server.address.to_string().parse().unwrap());
        probe.authorities = Some(certificates.authority());
        assert_seen(Probe::Tls(probe.clone()), verified.0, verified.1).await;
        probe.verify = false;
        let detail = assert_seen(Probe::Tls(probe), times.0, times.1).await;
        assert!(detail.contains("not verified"), "{detail}");
    }
    // A certificate that has ended, shown beside what a client needs.
    let good = certificates.chain((-1, 60), (-9, 90));
    let (chain, key) = good.clone();
    let (old, _) = certificates.chain((-9, -2), (-9, -1));
    server.act(Act::Sealed((chain + &old, key), Vec::new()));
    let mut probe = TlsProbe::new(server.address.to_string().parse().unwrap());
    probe.authorities = Some(certificates.authority());
    assert_seen(Probe::Tls(probe.clone()), pass, "ok").await;
    probe.server_name = Some("node.example".into());
    assert_seen(Probe::Tls(probe.clone()), fail, "certificate-wrong-name").await;
    probe.server_name = None;
    server.act(Act::Sealed(good, Vec::new()));
    let stranger = Certificates::new();
    probe.authorities = Some(stranger.authority());
    assert_seen(Probe::Tls(probe), fail, "certificate-untrusted").await;
}

#[tokio::test]
async fn names_are_asked_of_servers() {
    let long = "x".repeat(250);
    let texts: Vec<String> = (0..8)
        .map(|n| format!("--txt-record=long.test,{n}{long}"))
        .collect();
    let mut records = vec![
        "--host-record=node.test,192.0.2.7,2001:db8::7",
        "--cname=alias.test,node.test",
        "--mx-host=test,mail.test,10",
        "--txt-record=note.test,well kept",
        "--srv-host=_rpc._tcp.test,node.test,8332",
    ];
    records.extend(texts.iter().map(String::as_str));
    let server = Dnsmasq::start(&records);
    let address = server.address();
    let (pass, fail) = (Outcome::Pass, Outcome::Fail);
    for (question, outcome, cause) in [
        ("name = \"node.test\"", pass, "ok"),
        (
            "name = \"NODE.test.\", expect = [\"192.0.2.7\"]",
            pass,
            "ok",
        ),
        (
            "name = \"node.test\", expect = [\"192.0.2.8\"]",
            fail,
            "unexpected-record",
        ),
        (
            "name = \"node.test\", record = \"AAAA\", expect = [\"2001:db8::7\"]",
            pass,
            "ok",
        ),
        (
            "name = \"alias.test\", expect = [\"192.0.2.7\"]",
            pass,
            "ok",
        ),
        (
            "name = \"alias.test\", record = \"CNAME\", expect = [\"node.test\"]",
            pass,
            "ok",
        ),
        (
            "name = \"test\", record = \"MX\", expect = [\"10 Mail.test.\"]",
            pass,
            "ok",
        ),
        (
            "name = \"note.test\", record = \"TXT\", expect = [\"well kept\"]",
            pass,
            "ok",
        ),
        (
            "name = \"_rpc._tcp.test\", record = \"SRV\", expect = [\"0 0 8332 node.test\"]",
            pass,
            "ok",
        ),
        // More than a packet of UDP may have.
        ("name = \"long.test\", record = \"TXT\"", pass, "ok"),
        ("name = \"node.test\", record = \"MX\"", fail, "no-record"),
        ("name = \"gone.test\"", fail, "name-not-found"),
        // Of what it does not know it refuses to tell.
        ("name = \"node.example\"", fail, "server-failed"),
    ] {
        let probe = format!("dns = {{ {question}, servers = [\"{address}\"] }}");
        assert_seen(read(&probe), outcome, cause).await;
    }
    let nobody: SocketAddr = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let probe = format!("dns = {{ name = \"node.test\", servers = [\"{nobody}\"] }}");
    assert_seen(read(&probe), fail, "no-answer").await;
    // The next one is asked.
    let probe =
        format!("dns = {{ name = \"node.test\", servers = [\"{nobody}\", \"{address}\"] }}");
    assert_seen(read(&probe), pass, "ok").await;
}

#[tokio::test]
async fn names_are_asked_of_the_system() {
    for (question, outcome, cause) in [
        ("name = \"localhost\"", Outcome::Pass, "ok"),
        (
            "name = \"localhost\", record = \"A\", expect = [\"127.0.0.1\"]",
            Outcome::Pass,
            "ok",
        ),
        (
            "name = \"localhost\", expect = [\"192.0.2.1\"]",
            Outcome::Fail,
            "unexpected-record",
        ),
        // Reserved for names that do not exist: RFC 6761.
        ("name = \"nobody.invalid\"", Outcome::Fail, "name-not-found"),
    ] {
        assert_seen(read(&format!("dns = {{ {question} }}")), outcome, cause).await;
    }
    assert_seen(
        read("tcp = { address = \"nobody.invalid:1\" }"),
        Outcome::Fail,
        "name-not-found",
    )
    .await;
}

#[tokio::test]
async fn a_disk_is_as_full_as_stat_says() {
    let folder = tempfile::tempdir().unwrap();
    let stat = Command::new("stat")
        .args(["--file-system", "--format=%a %S %d"])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(stat.stdout).unwrap();
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse::<u64>().unwrap());
    let [blocks, block_bytes, inodes] = [(); 3].map(|()| numbers.next().unwrap());
    // Others write meanwhile: half and twice of what there is are on either side.
    let (low, high) = (blocks * block_bytes / 2, blocks * block_bytes * 2);
    let (few, many) = (inodes / 2, inodes.saturating_mul(2));
    assert!(inodes > 1, "this file system counts inodes");
    let (pass, warn, fail) = (Outcome::Pass, Outcome::Warn, Outcome::Fail);
    for (fail_below, warn_below, fail_inodes, warn_inodes, outcome, cause) in [
        (low, low, few, few, pass, "ok"),
        (low, high, few, few, warn, "low-space"),
        (high, high, few, few, fail, "low-space"),
        (low, low, few, many, warn, "low-inodes"),
        (low, low, many, many, fail, "low-inodes"),
        (low, high, many, many, fail, "low-inodes"),
    ] {
        let mut probe = DiskProbe::new(folder.path(), ByteSize::new(fail_below));
        probe.warn_below = ByteSize::new(warn_below);
        probe.fail_below_inodes = fail_inodes;
        probe.warn_below_inodes = warn_inodes;
        let detail = assert_seen(Probe::Disk(probe), outcome, cause).await;
        assert!(detail.contains("inodes left"), "{detail}");
    }
    let gone = DiskProbe::new(folder.path().join("gone"), ByteSize::default());
    let detail = assert_seen(Probe::Disk(gone), fail, "path-unreadable").await;
    assert!(detail.contains("gone"), "{detail}");
}

#[tokio::test]
async fn the_clock_is_judged_by_most_of_the_servers() {
    let (here, late, early) = (Time::Away(0.0), Time::Away(3600.0), Time::Away(-3600.0));
    let vague = Time::After(Duration::from_secs(5));
    for (times, outcome, cause) in [
        (vec![here], Outcome::Pass, "ok"),
        (vec![here, here, late], Outcome::Pass, "ok"),
        (vec![early, here, late], Outcome::Pass, "ok"),
        (vec![late, here, late], Outcome::Fail, "clock-skew"),
        (vec![early, early, here], Outcome::Fail, "clock-skew"),
        (
            vec![Time::Away(1.5), Time::Away(1.5), here],
            Outcome::Warn,
            "clock-skew",
        ),
        (vec![here, here, Time::Silent], Outcome::Pass, "ok"),
        (
            vec![here, Time::Silent, Time::Silent],
            Outcome::Unknown,
            "no-time",
        ),
        (vec![here, Time::Silent], Outcome::Unknown, "no-time"),
        (vec![Time::Lost], Outcome::Unknown, "no-time"),
        (vec![vague], Outcome::Unknown, "no-time"),
    ] {
        let servers: Vec<_> = times.into_iter().map(TimeServer::start).collect();
        let addresses = servers
            .iter()
            .map(|server| server.address.to_string().parse().unwrap());
        let mut probe = ClockProbe::new(addresses);
        // A busy machine takes a while to answer.
        probe.warn_skew = Duration::from_secs(1);
        probe.fail_skew = Duration::from_secs(2);
        let waits = matches!(cause, "no-time");
        probe.server_timeout = if waits {
            Duration::from_secs(6)
        } else {
            Duration::from_secs(2)
        };
        assert_seen(Probe::Clock(probe), outcome, cause).await;
    }
}

fn script(script: &str) -> CommandProbe {
    CommandProbe::new("sh", ["-c", script])
}

#[tokio::test]
async fn commands_speak_by_their_exit_codes() {
    for (text, outcome, cause, says) in [
        (
            "echo all is well; echo more",
            Outcome::Pass,
            "ok",
            "all is well",
        ),
        ("exit 1", Outcome::Warn, "exit-code", "exit status: 1"),
        ("echo hm >&2; exit 2", Outcome::Fail, "exit-code", "hm"),
        ("exit 3", Outcome::Unknown, "exit-code", "exit status: 3"),
        ("kill -9 $$", Outcome::Fail, "killed", "signal: 9"),
        // Far more than a pipe holds, and than is kept.
        (
            "head -c 10000000 /dev/zero | tr '\\0' x; exit 4",
            Outcome::Fail,
            "exit-code",
            "xxx",
        ),
    ] {
        let mut probe = script(text);
        probe.warn_codes = vec![1];
        probe.unknown_codes = vec![3];
        let detail = assert_seen(Probe::Command(probe), outcome, cause).await;
        assert!(
            detail.contains(says) && detail.len() <= Observation::MAX_DETAIL_BYTES,
            "{detail}"
        );
    }
    let mut quiet = script("echo pa55; exit 2");
    quiet.show_output = false;
    let detail = assert_seen(Probe::Command(quiet), Outcome::Fail, "exit-code").await;
    assert!(!detail.contains("pa55"), "{detail}");
    let none = CommandProbe::new("/no/such/program", [""]);
    let detail = assert_seen(Probe::Command(none), Outcome::Fail, "not-started").await;
    assert!(detail.contains("/no/such/program"), "{detail}");
}

/// Whether a process is there, and not only its number.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

async fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < LONG, "it never comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_that_is_cut_off_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    // Neither listens to what can be ignored.
    let text = format!(
        "trap '' TERM INT HUP; sh -c 'trap \"\" TERM INT HUP; while :; do sleep 1; done' & echo $$ $! > {}; wait",
        pids.display()
    );
    let check = ProbeCheck::from(Probe::Command(script(&text)));
    {
        let mut run = Box::pin(check.check());
        tokio::select! {
            seen = &mut run => panic!("{seen:?}"),
            () = until(|| fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n'))) => {}
        }
    }
    let pids = fs::read_to_string(&pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2);
    for pid in pids.split_whitespace() {
        until(|| !runs(pid)).await;
    }
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_not_waited_for() {
    // It holds on to the output.
    let seen = look(Probe::Command(script("sleep 1000 & echo $!"))).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    let pid = seen.detail.unwrap();
    assert!(runs(&pid), "it goes on, as the documents say");
    assert!(
        Command::new("sh")
            .args(["-c", &format!("kill {pid}")])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn bad_probes_are_refused_with_file_line_and_key() {
    for (probe, key, says) in [
        ("tcp = { address = \"host\" }", "address", "host and port"),
        (
            "tcp = { address = \"host:1\", port = 1 }",
            "port",
            "unknown field",
        ),
        ("ftp = { address = \"host:1\" }", "ftp", "unknown variant"),
        (
            "http = { url = \"http://user:pa55@host/\" }",
            "url",
            "login",
        ),
        ("http = { url = \"host/path\" }", "url", "is no URL"),
        (
            "http = { url = \"http://h/\", headers = { \"a b\" = \"c\" } }",
            "headers",
            "no name of a header",
        ),
        (
            "http = { url = \"http://h/\", headers = { a = \"b\\nc\" } }",
            "headers",
            "no value of a header",
        ),
        (
            "http = { url = \"http://h/\", expect_json = [{ pointer = \"status\" }] }",
            "pointer",
            "begins with /",
        ),
        (
            "http = { url = \"http://h/\", method = \"post\" }",
            "method",
            "unknown variant",
        ),
        ("dns = { name = \"a..b\" }", "name", "is no name"),
        (
            "dns = { name = \"a.b\", record = \"MX\" }",
            "probe",
            "knows addresses only",
        ),
        (
            "dns = { name = \"a.b\", servers = [\"192.0.2.1\"] }",
            "servers",
            "invalid socket address",
        ),
        (
            "disk = { path = \"/\", fail_below = \"5GB\" }",
            "fail_below",
            "is not a size",
        ),
        ("clock = { servers = [] }", "probe", "from 1 to 16"),
        (
            "clock = { servers = [\"a:1\"], warn_skew = \"2s\", fail_skew = \"1s\" }",
            "probe",
            "below warn_skew",
        ),
        (
            "command = { args = [] }",
            "probe",
            "missing field `program`",
        ),
    ] {
        let text = format!("[[checks]]\nname = \"a\"\nkind = \"readiness\"\nprobe.{probe}\n");
        let error = HealthConfig::<Probe>::from_toml("health.toml", &text).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(says), "{probe}: {shown}");
        assert!(!shown.contains("pa55"), "{shown}");
        let Error::Config {
            file,
            line,
            key: named,
            ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((file.as_str(), line), ("health.toml", 4), "{probe}");
        assert!(named.contains(key), "{probe}: {named}");
    }
}
