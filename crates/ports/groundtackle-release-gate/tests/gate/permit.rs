//! A permit is for one thing, once, in time.

use groundtackle_release_gate::{
    Action, Digest, Error, Gate, Permit, PermitLedger, PermitRefused, PolicyFormat, Request,
    Signer, Verdict,
};
use jiff::SignedDuration;

use crate::setting::*;

fn permit() -> Permit {
    let (decision, permit) = operations().admit(&evidence(), &request(), noon());
    assert_go(&decision);
    permit.expect("go gives a permit")
}

#[test]
fn no_permit_without_go() {
    let (decision, permit) = operations().admit(&[], &request(), noon());
    assert!(decision.verdict != Verdict::Go && permit.is_none());
}

#[test]
fn a_permit_is_refused_for_another_digest_environment_action_late_and_twice() {
    let ledger = PermitLedger::new();
    let redeem = |permit: Permit, artefact: &Digest, environment: &str, action, now| {
        permit
            .redeem(&ledger, artefact, environment, action, now)
            .map(|clearance| clearance.decision())
    };
    let (ours, other) = (artefact(), Digest::of(b"other"));
    let deploy = Action::Deploy;
    assert_eq!(
        redeem(permit(), &other, "production", deploy, noon()),
        Err(PermitRefused::OtherArtefact(ours))
    );
    assert_eq!(
        redeem(permit(), &ours, "staging", deploy, noon()),
        Err(PermitRefused::OtherEnvironment("production".into()))
    );
    assert_eq!(
        redeem(permit(), &ours, "production", Action::Rollback, noon()),
        Err(PermitRefused::OtherAction(deploy))
    );
    let early = noon().checked_sub(SignedDuration::from_nanos(1)).unwrap();
    assert_eq!(
        redeem(permit(), &ours, "production", deploy, early),
        Err(PermitRefused::Early(noon()))
    );
    let id = permit().decision();
    let end = permit().expires_at();
    assert_eq!(end, at("2026-11-10T11:10:00Z"));
    let last = end.checked_sub(SignedDuration::from_nanos(1)).unwrap();
    assert_eq!(redeem(permit(), &ours, "production", deploy, last), Ok(id));
    // The same answer at the same instant is the same permit, also when the clock is put back.
    assert_eq!(
        redeem(permit(), &ours, "production", deploy, noon()),
        Err(PermitRefused::Used)
    );
    assert_eq!(
        redeem(permit(), &ours, "production", deploy, end),
        Err(PermitRefused::Late(end))
    );
    assert_eq!(
        redeem(permit(), &ours, "production", deploy, noon()),
        Err(PermitRefused::Late(end))
    );
}

#[test]
fn a_permit_crosses_processes_signed() {
    let signer = Signer::from_seed(&[3; 32]);
    let text = permit().seal(&signer).unwrap();
    let open = |text: &str| Permit::open(text, &[signer.public()]);
    assert!(matches!(
        Permit::open(&text, &[]),
        Err(Error::Untrusted { .. })
    ));
    let ledger = PermitLedger::new();
    let redeem =
        |permit: Permit| permit.redeem(&ledger, &artefact(), "production", Action::Deploy, noon());
    let clearance = redeem(open(&text).unwrap()).unwrap();
    assert_eq!(
        (
            clearance.actor(),
            clearance.environment(),
            clearance.artefact()
        ),
        ("olga", "production", artefact())
    );
    assert_eq!(
        redeem(open(&text).unwrap()).unwrap_err(),
        PermitRefused::Used
    );
    for byte in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[byte] ^= 1;
        if let Ok(changed) = String::from_utf8(changed) {
            assert!(open(&changed).is_err(), "byte {byte}");
        }
    }
}

#[test]
fn work_stops_when_the_window_says_so() {
    let gate = Gate::read("chain.toml", &policy_text("chain.toml"), PolicyFormat::Toml).unwrap();
    let mut policy = gate.policy().clone();
    let here = policy
        .environments
        .iter_mut()
        .find(|environment| environment.name == "main-net")
        .unwrap();
    let actors = here.actors.clone();
    *here = groundtackle_release_gate::Environment::new("main-net");
    here.actors = actors;
    let gate = Gate::new(policy).unwrap();
    let request = Request {
        environment: "main-net".into(),
        takes: None,
        ..request()
    };
    let (_, permit) = gate.admit(&[], &request, at("2026-11-10T15:45:00Z"));
    let permit = permit.unwrap();
    assert_eq!(
        permit.expires_at(),
        at("2026-11-10T16:00:00Z"),
        "it does not begin after the window"
    );
    let begin = at("2026-11-10T15:59:59Z");
    let clearance = permit
        .redeem(
            &PermitLedger::new(),
            &artefact(),
            "main-net",
            Action::Deploy,
            begin,
        )
        .unwrap();
    assert!(clearance.may_go_on(begin) && !clearance.may_go_on(at("2026-11-10T16:00:00Z")));
}
