//! What must hold of any bytes. The fuzz targets and the corpus test call the same checks.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
#![allow(unreachable_pub)]

use std::collections::BTreeSet;

use groundtackle_release_gate::{
    Action, CalendarDate, Digest, Entry, Error, Evidence, Gate, Head, Length, Permit, Policy,
    PolicyFormat, PublicKey, Record, Request, Signer, TagPattern, TimeOfDay, TimeOfWeek, Timestamp,
    Verdict, Zone, log_evidence, minutes_html, minutes_markdown, replay, verify,
};

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

/// Half a day, and from 2026 on for some years.
fn instant(step: u8) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + i64::from(step) * 43_261 * 16).unwrap()
}

/// A policy, after a byte for its format and one for the time: it is refused with the line and the key, or it judges whatever it
/// is asked, always in the same way, and comes back from its own JSON.
pub fn policy(bytes: &[u8]) {
    let [format, step, text @ ..] = bytes else {
        return;
    };
    let format = match format % 2 {
        0 => PolicyFormat::Toml,
        _ => PolicyFormat::Json,
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let gate = match Gate::read("policy", text, format) {
        Ok(gate) => gate,
        Err(Error::InvalidPolicy {
            file, line, detail, ..
        }) => {
            assert_eq!(file, "policy");
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(!detail.is_empty());
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let json = serde_json::to_string(gate.policy()).unwrap();
    let again = Gate::read("policy", &json, PolicyFormat::Json).unwrap();
    assert_eq!(again.policy(), gate.policy());
    assert_eq!(again.policy_digest(), gate.policy_digest());
    let now = instant(*step);
    for request in requests(gate.policy()) {
        let decision = gate.judge(&[], &request, now);
        assert_eq!(decision, again.judge(&[], &request, now));
        let (admitted, permit) = gate.admit(&[], &request, now);
        assert_eq!(admitted, decision);
        assert!(permit.is_none() || decision.verdict == Verdict::Go);
        if let Some(permit) = permit {
            assert!(permit.expires_at() > now);
        }
        assert_eq!(
            gate.when(&[], &request, now),
            again.when(&[], &request, now)
        );
    }
    for role in &gate.policy().roles {
        let on_shift = gate.on_shift(&role.name, now);
        assert!(on_shift.is_sorted_by(|a, b| a < b));
    }
}

/// One for each environment and action, by whoever is named first.
fn requests(policy: &Policy) -> Vec<Request> {
    let actor = policy.roles.iter().flat_map(|role| &role.members).next();
    let environments = policy.environments.iter().take(4);
    let request = |environment: &str, action| Request {
        name: "node".into(),
        tag: "v1.4.0".into(),
        artefact: Digest::of(b"node"),
        environment: environment.into(),
        action,
        actor: actor.cloned().unwrap_or_default(),
        takes: Some(Length::minutes(30)),
    };
    environments
        .flat_map(|of| [Action::Deploy, Action::Rollback].map(|action| request(&of.name, action)))
        .collect()
}

/// Entries of a log, a JSON on each line, after two bytes: what can be written is read back, in this order alone; a changed,
/// moved or missing byte is found.
pub fn release_log(bytes: &[u8]) {
    let [how, at, text @ ..] = bytes else {
        return;
    };
    let trusted = [signer().public()];
    // Nobody signed what a fuzzer makes up.
    let raw = verify(text, &trusted, None);
    assert!(raw.is_err() || raw.unwrap().records.is_empty());
    let (mut log, mut head) = (Vec::new(), Head::EMPTY);
    let mut entries = Vec::new();
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n').take(8) {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            continue;
        };
        let Ok((line, next)) = head.append(entry.clone(), instant(*at), &signer()) else {
            continue;
        };
        log.extend(&line);
        lines.push(line);
        entries.push(entry);
        head = next;
    }
    let whole = verify(&log, &trusted, Some(&head)).unwrap();
    assert_eq!(whole.head, head);
    assert_eq!(whole.whole_bytes, log.len());
    let found: Vec<_> = whole.records.iter().map(|record| &record.entry).collect();
    assert!(found.iter().zip(&entries).all(|(a, b)| *a == b) && found.len() == entries.len());
    let sealed = head.seal(&signer()).unwrap();
    assert_eq!(Head::open(&sealed, &trusted).unwrap(), head);
    look_at(&whole.records);
    let Some(last) = lines.len().checked_sub(1) else {
        return;
    };
    let place = usize::from(*at) * log.len() / 256;
    match how % 4 {
        0 => {
            let mut changed = log.clone();
            changed[place] ^= 1 << (how / 4 % 8);
            assert!(verify(&changed, &trusted, Some(&head)).is_err());
        }
        1 => {
            let cut = &log[..place];
            assert!(verify(cut, &trusted, Some(&head)).is_err());
            let begun = verify(cut, &trusted, None).unwrap();
            assert!(begun.whole_bytes <= cut.len());
            assert_eq!(begun.records[..], whole.records[..begun.records.len()]);
        }
        2 => {
            lines.swap(0, last);
            assert_eq!(verify(&lines.concat(), &trusted, None).is_ok(), last == 0);
        }
        _ => {
            lines.remove(0);
            assert_eq!(verify(&lines.concat(), &trusted, None).is_ok(), last == 0);
        }
    }
    let stranger = [Signer::from_seed(&[8; 32]).public()];
    assert!(verify(&log, &stranger, None).is_err());
}

/// Nothing that is written down can't be looked at.
fn look_at(records: &[Record]) {
    for record in records {
        assert_eq!(
            minutes_markdown(record).is_some(),
            minutes_html(record).is_some()
        );
    }
    let policy = include_str!("../../policies/two-people.toml");
    let gate = Gate::read("two-people.toml", policy, PolicyFormat::Toml).unwrap();
    assert!(replay(&gate, records).count() <= records.len());
    for evidence in log_evidence(gate.policy(), "log", records, instant(255)) {
        assert_eq!(evidence.source, "log");
    }
}

/// What people write into policies and requests: what is read comes back from its text, and reads the same.
pub fn gate_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    macro_rules! again {
        ($($type:ty),+) => {$(
            if let Ok(read) = text.parse::<$type>() {
                assert_eq!(read.to_string().parse::<$type>().unwrap(), read);
            }
        )+};
    }
    again!(
        Digest,
        Length,
        TimeOfDay,
        TimeOfWeek,
        CalendarDate,
        PublicKey,
        TagPattern
    );
    if let Ok(zone) = text.parse::<Zone>() {
        assert_eq!(zone.name().parse::<Zone>().unwrap(), zone);
        for step in [0, 90, 180, 255] {
            let now = instant(step);
            assert!(zone.quarter_of(now) <= now);
        }
    }
    if let Some((pattern, tag)) = text.split_once('\n')
        && let Ok(pattern) = pattern.parse::<TagPattern>()
    {
        // A pattern names each tag that it is made of.
        if !pattern.to_string().contains(['#', '*', '?']) {
            assert_eq!(pattern.matches(tag), pattern.to_string() == tag);
        }
    }
    assert!(Permit::open(text, &[signer().public()]).is_err());
    assert!(Head::open(text, &[signer().public()]).is_err());
    if let Ok(evidence) = serde_json::from_str::<Evidence>(text) {
        let json = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), evidence);
        assert!(!evidence.is_signed_by(&BTreeSet::from([signer().public()])));
        if let Ok(signed) = evidence.sign(&signer()) {
            assert!(signed.is_signed_by(&BTreeSet::from([signer().public()])));
        }
    }
}
