//! What people write for services, and what services write down.

use std::fs;

use groundtackle_health_check::{Bucket, FileLedger, LedgerEntry, LedgerStorage, Name};
use groundtackle_release_gate::{
    Action, Deployed, Digest, Entry, Evidence, Fact, Gate, Incident, Length, PolicyFormat, Request,
    Severity, Timestamp,
};

use crate::{fuzz, save};

const FUZZED_INSTANT: u8 = 90;

pub(crate) fn save_gate() {
    let policies = fuzz().join("../crates/ports/groundtackle-release-gate/policies");
    let read = |name: &str| fs::read_to_string(policies.join(name)).unwrap();
    for name in ["chain", "operations", "two-people"] {
        let text = read(&format!("{name}.toml"));
        let gate = Gate::read(name, &text, PolicyFormat::Toml).unwrap();
        let json = serde_json::to_string(gate.policy()).unwrap();
        let with = |format: u8, text: &str| [&[format, FUZZED_INSTANT], text.as_bytes()].concat();
        save("policy", format!("{name}-toml"), &with(0, &text));
        save("policy", format!("{name}-json"), &with(1, &json));
        // Each is refused for another reason, in another line.
        for (number, (from, to)) in [
            ("version = 1", "version = 2"),
            ("zone = \"", "zone = \"Nowhere/"),
            ("start = \"", "start = \"x"),
            ("at_least = 1", "at_least = 9"),
            ("[[environment]]", "[[environments]]"),
        ]
        .into_iter()
        .enumerate()
        {
            let changed = text.replacen(from, to, 1);
            if changed != text {
                save(
                    "policy",
                    format!("{name}-refused-{number}"),
                    &with(0, &changed),
                );
            }
        }
    }
    save_log(&read("two-people.toml"));
    for (number, text) in [
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "90m",
        "24h",
        "08:30",
        "fri 15:00",
        "2026-12-24",
        "Europe/London",
        "UTC",
        "v#.#.#\nv1.4.0",
        "#.#.#-rc.#\n1.4.0-rc.1",
        "v*\nv1.4.0+x",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ]
    .into_iter()
    .enumerate()
    {
        save("gate_text", format!("text-{number}"), text.as_bytes());
    }
    let evidence = serde_json::to_string(&approval()).unwrap();
    save("gate_text", "evidence", evidence.as_bytes());
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn approval() -> Evidence {
    let fact = Fact::Approval {
        artefact: Digest::of(b"node"),
        environment: "production".into(),
        by: "ann".into(),
    };
    Evidence::new("people", at("2026-03-01T12:00:00Z"), fact)
}

/// One entry of each kind.
fn save_log(policy: &str) {
    let gate = Gate::read("policy.toml", policy, PolicyFormat::Toml).unwrap();
    let request = Request {
        name: "node".into(),
        tag: "v1.4.0".into(),
        artefact: Digest::of(b"node"),
        environment: "production".into(),
        action: Action::Deploy,
        actor: "ann".into(),
        takes: Some(Length::minutes(30)),
    };
    let evidence = vec![approval()];
    let decision = Box::new(gate.judge(&evidence, &request, at("2026-03-01T12:01:00Z")));
    let deployment = Deployed {
        decision: decision.digest(),
        artefact: request.artefact,
        environment: "production".into(),
        action: Action::Rollback,
        finished_at: at("2026-03-01T13:00:00Z"),
        succeeded: true,
        changed_at: vec![at("2026-02-01T13:00:00Z")],
        repairs: None,
    };
    let measured = Fact::Measure {
        name: "downtime".into(),
        // Read with less care, it is its neighbour.
        value: 51.248178375505404,
        since: at("2026-01-01T00:00:00Z"),
    };
    let opened = at("2026-03-01T14:00:00Z");
    let entries = [
        Entry::Decision { decision, evidence },
        Entry::Deployed { deployment },
        Entry::Evidence {
            evidence: Evidence::new("figures", opened, measured),
        },
        Entry::Incident {
            incident: Incident::open("INC-7", "it is slow", Severity::Major, opened),
        },
    ];
    let lines: Vec<_> = entries
        .iter()
        .map(|entry| serde_json::to_string(entry).unwrap())
        .collect();
    for how in 0..4_u8 {
        let all = [&[how, 100], lines.join("\n").as_bytes()].concat();
        save("release_log", format!("all-{how}"), &all);
    }
    for (number, line) in lines.iter().enumerate() {
        let one = [&[1, 128], line.as_bytes()].concat();
        save("release_log", format!("one-{number}"), &one);
    }
}

const HEALTH: &str = r#"
[[checks]]
name = "database"
kind = "readiness"
subsets = ["storage"]
schedule = { period = "5s", timeout = "1s" }
probe = { connect_to = "127.0.0.1:5432" }

[[checks]]
name = "tip"
kind = "startup"
depends_on = ["database"]
required = false
public = true
probe = {}

[[objectives]]
name = "available"
target = 0.999
window = { rolling_days = 30 }

[[maintenances]]
name = "upgrade"
begins = "2026-12-24T20:00:00Z"
ends = "2026-12-24T22:00:00Z"
checks = ["database"]
"#;

pub(crate) fn save_health() {
    save("health_config", "whole", HEALTH.as_bytes());
    for (number, (from, to)) in [
        ("kind = \"readiness\"", "kind = \"liveness\""),
        ("depends_on = [\"database\"]", "depends_on = [\"tip\"]"),
        ("period = \"5s\"", "period = \"500ms\""),
        ("name = \"tip\"", "name = \"database\""),
        ("target = 0.999", "target = 1.999"),
        ("subsets", "subset"),
        ("22:00:00", "19:00:00"),
        ("checks = [\"database\"]", "checks = [\"nobody\"]"),
        ("probe = {}", "probe = {"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = HEALTH.replacen(from, to, 1);
        save(
            "health_config",
            format!("refused-{number}"),
            text.as_bytes(),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let ledger = FileLedger::open(&path).unwrap();
    let minute = |minute, good_millis| LedgerEntry::Minute {
        objective: Name::try_from("available").unwrap(),
        minute,
        bucket: Bucket {
            good_millis,
            bad_millis: 60_000 - good_millis,
            excluded_millis: 0,
        },
    };
    let declared = serde_json::json!({
        "maintenance": {
            "name": "upgrade",
            "begins": "2026-12-24T20:00:00Z",
            "ends": "2026-12-24T22:00:00Z",
            "checks": ["database"],
        },
        "declared_unix_millis": 7,
    });
    let declared = serde_json::from_value(declared).unwrap();
    ledger.append(&[minute(29_000_000, 60_000)]).unwrap();
    ledger
        .append(&[minute(29_000_001, 7), LedgerEntry::Maintenance(declared)])
        .unwrap();
    let file = fs::read(&path).unwrap();
    save("ledger", "whole", &[&[0], &file[..]].concat());
    save("ledger", "cut", &[&[0], &file[..file.len() - 3]].concat());
    let mut damaged = file.clone();
    damaged[20] ^= 1;
    save("ledger", "refused-damaged", &[&[0], &damaged[..]].concat());
    // Without the front and the heads of two frames, of 27 bytes the first.
    let (first, second) = (&file[16..16 + 21], &file[16 + 21 + 8..]);
    save("ledger", "minute", &[&[255], first].concat());
    save("ledger", "payload", &[&[255], second].concat());
}

/// Of Redis 7.0 and Aerospike 8.1, in part.
pub(crate) fn save_infos() {
    let primary = "# Memory\r\nused_memory:1000\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nmem_not_counted_for_evict:0\r\n# Persistence\r\nloading:0\r\nrdb_last_bgsave_status:ok\r\naof_last_bgrewrite_status:ok\r\naof_last_write_status:ok\r\n# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=900,lag=1\r\nslave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=40\r\nmaster_repl_offset:1000\r\n";
    let replica = "used_memory:1000\r\nmaxmemory:1100\r\nmaxmemory_policy:noeviction\r\nloading:0\r\nrdb_last_bgsave_status:ok\r\naof_last_bgrewrite_status:ok\r\naof_last_write_status:ok\r\nrole:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:5000\r\nslave_repl_offset:4000\r\n";
    let cluster = "\0cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n";
    let url = "\0rediss://user:password@host:6379/0";
    save("redis_info", "primary", primary.as_bytes());
    save("redis_info", "replica", replica.as_bytes());
    save(
        "redis_info",
        "cluster",
        [primary, cluster, url].concat().as_bytes(),
    );

    let namespace = "namespace/test\tns_cluster_size=2;effective_replication_factor=2;dead_partitions=0;unavailable_partitions=0;clock_skew_stop_writes=false;stop_writes=false;data_used_pct=10;data_avail_pct=60;migrate_tx_partitions_remaining=0;migrate_rx_partitions_remaining=0;replication-factor=2;storage-engine.stop-writes-avail-pct=5;storage-engine.stop-writes-used-pct=70\n";
    let peers = "peers-clear-std\t6,3100,[[A1,,[127.0.0.1:23000]],[A2,tls.name,[db-2,10.0.0.2:3001,[::1]]]]\n";
    let node = "node\tA0\nbuild\t8.1.2.0\n";
    for (name, text) in [("namespace", namespace), ("peers", peers), ("node", node)] {
        save("aerospike_info", name, &[&[1], text.as_bytes()].concat());
    }
    save(
        "aerospike_info",
        "raw",
        b"\0\x02\x01\0\0\0\0\0\x08node\tA0\n",
    );
    save(
        "aerospike_info",
        "refused-http",
        b"\0HTTP/1.1 400 Bad Request\r\n",
    );
}

/// As Ethereum and Bitcoin nodes answer, and what stands between.
pub(crate) fn save_rpc_answers() {
    for (name, status, body) in [
        ("number", 200, r#"{"jsonrpc":"2.0","id":1,"result":7}"#),
        ("text", 200, r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#),
        (
            "header",
            200,
            r#"{"result":{"time":1231006505,"hash":"00000000"},"error":null,"id":1}"#,
        ),
        ("nothing", 200, r#"{"jsonrpc":"2.0","id":1,"result":null}"#),
        ("other-id", 200, r#"{"jsonrpc":"2.0","id":2,"result":7}"#),
        (
            "not-offered",
            404,
            r#"{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}"#,
        ),
        (
            "echo",
            500,
            r#"{"id":1,"error":{"code":-1,"message":"no project 0123456789abcdef for pa55word"}}"#,
        ),
        ("unauthorized", 401, ""),
        ("limited", 429, "slow down"),
        ("gateway", 502, "<html>"),
        ("no-json", 200, "<html>"),
    ] {
        let bytes = groundtackle_health_check_json_rpc::fuzzing::answer(status, body);
        save("rpc_answer", name, &bytes);
    }
    // What is not looked at may be no UTF-8.
    let aside = b"\0d{\"jsonrpc\":\"2.\x92\",\"id\":1,\"result\":7}";
    save("rpc_answer", "no-utf-8-aside", aside);
}
