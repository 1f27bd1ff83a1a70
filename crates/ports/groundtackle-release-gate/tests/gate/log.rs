//! The record: whatever is changed is found.

use groundtackle_release_gate::{
    Action, Deployed, Entry, Error, Evidence, Head, Incident, Record, Severity, Signer,
    minutes_html, minutes_markdown, verify,
};

use crate::setting::*;

pub(crate) fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

pub(crate) fn decision_entry() -> Entry {
    Entry::Decision {
        decision: Box::new(judge(&evidence())),
        evidence: evidence(),
    }
}

pub(crate) fn entries() -> Vec<Entry> {
    let deployment = Deployed {
        decision: judge(&evidence()).digest(),
        artefact: artefact(),
        environment: "production".into(),
        action: Action::Deploy,
        finished_at: noon(),
        succeeded: true,
        changed_at: vec![at("2026-11-01T00:00:00Z")],
        repairs: None,
    };
    vec![
        Entry::Evidence {
            evidence: Evidence::new("cli", noon(), approval("omar")),
        },
        Entry::Deployed { deployment },
        Entry::Incident {
            incident: Incident::open("INC-7", "x", Severity::Minor, noon()),
        },
    ]
}

pub(crate) fn write(entries: Vec<Entry>) -> (Vec<Vec<u8>>, Head) {
    let mut head = Head::EMPTY;
    let mut lines = Vec::new();
    for entry in entries {
        let (line, next) = head.append(entry, noon(), &signer()).unwrap();
        lines.push(line);
        head = next;
    }
    (lines, head)
}

#[test]
fn what_is_written_comes_back() {
    let all: Vec<_> = entries().into_iter().chain([decision_entry()]).collect();
    let (lines, head) = write(all.clone());
    let verified = verify(&lines.concat(), &[signer().public()], Some(&head)).unwrap();
    assert_eq!(
        verified
            .records
            .iter()
            .map(|record| record.entry.clone())
            .collect::<Vec<_>>(),
        all
    );
    assert_eq!(
        (verified.head, verified.whole_bytes),
        (head, lines.concat().len())
    );
    let sealed = head.seal(&signer()).unwrap();
    assert_eq!(Head::open(&sealed, &[signer().public()]).unwrap(), head);
    assert!(matches!(
        Head::open(&sealed, &[]),
        Err(Error::Untrusted { .. })
    ));
}

/// One that is read as its neighbour would be another subject than the one that was signed.
#[test]
fn a_figure_comes_back_to_the_last_bit() {
    let figures = [42.215889504792884, 51.248178375505404, 19.243053591130522];
    let figures = figures.map(|value| Entry::Evidence {
        evidence: Evidence::new("figures", noon(), measure("downtime", value)),
    });
    let (lines, head) = write(figures.to_vec());
    let verified = verify(&lines.concat(), &[signer().public()], Some(&head)).unwrap();
    let read = verified.records.into_iter().map(|record| record.entry);
    assert!(read.eq(figures));
}

#[test]
fn every_bit_flip_is_found() {
    let (lines, head) = write(entries());
    let log = lines.concat();
    for byte in 0..log.len() {
        for bit in 0..8 {
            let mut changed = log.clone();
            changed[byte] ^= 1 << bit;
            // Of the last newline the head alone tells: a line without one was never acknowledged.
            let head = (byte == log.len() - 1).then_some(&head);
            let found = verify(&changed, &[signer().public()], head);
            assert!(found.is_err(), "bit {bit} of byte {byte}");
        }
    }
}

#[test]
fn every_reorder_and_every_missing_or_repeated_record_is_found() {
    let (lines, head) = write(entries());
    let keys = [signer().public()];
    for order in [
        &[1, 0, 2][..],
        &[0, 2, 1],
        &[2, 1, 0],
        &[0, 2],
        &[1, 2],
        &[0, 0, 1, 2],
        &[0, 1, 1, 2],
        &[0, 1, 2, 2],
    ] {
        let log: Vec<u8> = order.iter().flat_map(|n| lines[*n].clone()).collect();
        assert!(
            matches!(verify(&log, &keys, None), Err(Error::BrokenLog { .. })),
            "{order:?}"
        );
        assert!(verify(&log, &keys, Some(&head)).is_err());
    }
}

#[test]
fn every_truncation_is_found() {
    let (lines, head) = write(entries());
    let log = lines.concat();
    for length in 0..log.len() {
        assert!(
            verify(&log[..length], &[signer().public()], Some(&head)).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn every_key_swap_is_found() {
    let (mut lines, _) = write(entries());
    let other = Signer::from_seed(&[8; 32]);
    let log = lines.concat();
    assert!(matches!(
        verify(&log, &[other.public()], None),
        Err(Error::BrokenLog { record: 0, .. })
    ));
    assert!(verify(&log, &[], None).is_err());
    // A record of the right place and form, by somebody else, or under another's name.
    let before = verify(&lines[..2].concat(), &[signer().public()], None).unwrap();
    let (forged, _) = before
        .head
        .append(entries().remove(2), noon(), &other)
        .unwrap();
    let text = String::from_utf8(forged.clone()).unwrap();
    let named = text.replace(&other.public().to_string(), &signer().public().to_string());
    for forged in [forged, named.into_bytes()] {
        lines[2] = forged;
        let error = verify(&lines.concat(), &[signer().public()], None).unwrap_err();
        assert!(
            matches!(error, Error::BrokenLog { record: 2, .. }),
            "{error}"
        );
    }
    // Keys of small order sign everything.
    let weak = groundtackle_release_gate::PublicKey([0; 32]);
    assert!(verify(&log, &[weak], None).is_err());
}

#[test]
fn a_crash_during_append_leaves_a_log_that_verifies_and_takes_the_next_record() {
    let (lines, _) = write(entries());
    let acknowledged = lines[..2].concat();
    let keys = [signer().public()];
    let head = verify(&acknowledged, &keys, None).unwrap().head;
    for written in (0..lines[2].len())
        .step_by(7)
        .chain([lines[2].len() - 1, lines[2].len()])
    {
        let after_crash = [&acknowledged[..], &lines[2][..written]].concat();
        let found = verify(&after_crash, &keys, Some(&head)).unwrap();
        let mut log = after_crash[..found.whole_bytes].to_vec();
        let (next, head) = found
            .head
            .append(entries().remove(0), noon(), &signer())
            .unwrap();
        log.extend(next);
        let verified = verify(&log, &keys, Some(&head)).unwrap();
        let expected = if written == lines[2].len() { 4 } else { 3 };
        assert_eq!(verified.records.len(), expected, "{written} bytes");
    }
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let entry = Entry::Evidence {
        evidence: Evidence::new("x", noon(), measure("uptime", f64::NAN)),
    };
    assert!(matches!(
        Head::EMPTY.append(entry, noon(), &signer()),
        Err(Error::InvalidRequest { .. })
    ));
}

#[test]
fn minutes_say_what_was_decided_and_are_escaped() {
    let votes = [
        ("olga", groundtackle_release_gate::Vote::Go),
        (
            "<script>alert(1)</script>",
            groundtackle_release_gate::Vote::NoGo,
        ),
    ];
    let same = |fact: &groundtackle_release_gate::Fact| {
        matches!(fact, groundtackle_release_gate::Fact::Meeting { .. })
    };
    let evidence = with(
        evidence(),
        same,
        meeting(&votes, "a | b\n# not a heading & [x](javascript:y) *z*"),
    );
    let decision = judge(&evidence);
    let entry = Entry::Decision {
        decision: Box::new(decision.clone()),
        evidence,
    };
    let record = Record {
        sequence: 0,
        previous: artefact(),
        at: noon(),
        entry,
    };
    let markdown = minutes_markdown(&record).unwrap();
    assert!(
        markdown.starts_with("# deploy of node 1.4.0 to production: no-go\n"),
        "{markdown}"
    );
    assert!(
        markdown.contains("a \\| b \\# not a heading \\& \\[x\\]\\(javascript:y\\) \\*z\\*"),
        "{markdown}"
    );
    assert!(
        markdown.contains(&decision.evidence.to_string()) && markdown.contains("rita"),
        "{markdown}"
    );
    let html = minutes_html(&record).unwrap();
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt;: no-go") && !html.contains("<script"),
        "{html}"
    );
    for reason in &decision.reasons {
        assert!(
            html.contains(&reason.detail) && markdown.contains(reason.rule.name()),
            "{reason:?}"
        );
    }
    let other = Record {
        entry: entries().remove(1),
        ..record
    };
    assert_eq!(
        (minutes_markdown(&other), minutes_html(&other)),
        (None, None)
    );
}
