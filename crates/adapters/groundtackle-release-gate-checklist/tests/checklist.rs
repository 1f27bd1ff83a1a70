//! What only this adapter promises.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::fs;

use groundtackle_core::ByteSize;
use groundtackle_release_gate::{
    Digest, Error, Evidence, EvidenceSource, Fact, Form, Gate, Request, Retryability, Rule, Signer,
    Verdict,
};
use groundtackle_release_gate_checklist::{Checklist, ChecklistConfig, line};
use groundtackle_release_gate_testkit::request;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn config(&self) -> ChecklistConfig {
        ChecklistConfig::new(self.0.path().join("checklist.toml"))
    }

    async fn collect(&self) -> groundtackle_release_gate::Result<Vec<Evidence>> {
        Checklist::new(self.config()).collect(&request()).await
    }

    async fn refuses(&self, text: &str, why: &str) {
        self.write("checklist.toml", text);
        let error = self.collect().await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(error.retryability(), Retryability::Permanent);
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}

const NOTES: &str = "# 1.4.0\n";

fn item(id: &str, form: Form) -> Fact {
    Fact::Item {
        id: id.into(),
        artefact: request().artefact,
        form,
        passed: true,
        by: "rita".into(),
    }
}

fn now() -> groundtackle_release_gate::Timestamp {
    "2026-11-10T11:00:00Z".parse().unwrap()
}

fn notes() -> Evidence {
    Evidence::new("rita", now(), item("notes", Form::Document))
        .with_digest(Digest::of(NOTES.as_bytes()))
}

/// Signed by rita, written down, read, and taken by a gate that asks for her signature.
#[tokio::test]
async fn what_was_signed_counts_and_what_was_changed_since_does_not() {
    let folder = Folder::new();
    folder.write("notes.md", NOTES);
    let rita = Signer::from_seed(&[9; 32]);
    let announced = Evidence::new("rita", now(), item("announced", Form::Statement));
    let text = [
        "version = 1\n".to_owned(),
        line(&announced.sign(&rita).unwrap(), None).unwrap(),
        line(&notes().sign(&rita).unwrap(), Some("notes.md".into())).unwrap(),
    ]
    .join("\n");
    folder.write("checklist.toml", &text);
    let evidence = folder.collect().await.unwrap();
    assert_eq!(evidence.len(), 2);

    let policy = r#"
version = 1
name = "checklist"
zone = "UTC"
max_age = "1h"
permit_for = "10m"
[[role]]
name = "all"
members = ["olga", "rita"]
[[person]]
name = "rita"
keys = ["KEY"]
[[environment]]
name = "production"
actors = ["all"]
checklist = [
    { id = "announced", list = "all", owner = "all", form = "statement", signed = true },
    { id = "notes", list = "all", owner = "all", form = "document", signed = true },
]
"#;
    let policy = policy.replace("KEY", &rita.public().to_string());
    let format = groundtackle_release_gate::PolicyFormat::Toml;
    let gate = Gate::read("policy.toml", &policy, format).unwrap();
    let ask = |evidence: &[Evidence]| gate.judge(evidence, &request(), now());
    let decision = ask(&evidence);
    assert_eq!(decision.verdict, Verdict::Go, "{:#?}", decision.reasons);
    for (old, new) in [
        ("id = \"announced\"", "id = \"notes\""),
        ("11:00:00Z", "10:59:00Z"),
    ] {
        folder.write("checklist.toml", &text.replacen(old, new, 1));
        let decision = ask(&folder.collect().await.unwrap());
        assert_eq!(decision.verdict, Verdict::Inconclusive, "{old}");
        assert!(decision.reasons.iter().all(|r| r.rule == Rule::Checklist));
    }
}

#[tokio::test]
async fn a_document_is_what_was_ticked() {
    let folder = Folder::new();
    folder.write("notes.md", NOTES);
    let text = format!(
        "version = 1\n{}",
        line(&notes(), Some("notes.md".into())).unwrap()
    );
    folder.write("checklist.toml", &text);
    let found = folder.collect().await.unwrap();
    assert_eq!(found[0].digest, Some(Digest::of(NOTES.as_bytes())));
    // For another artefact it is no evidence, and the document is not asked for.
    let other = Request {
        artefact: Digest::of(b"another"),
        ..request()
    };
    let checklist = Checklist::new(folder.config());
    assert_eq!(checklist.collect(&other).await.unwrap(), []);

    folder.write("notes.md", "# 1.4.0, with a line more\n");
    folder.refuses(&text, "tick it anew").await;
    let short = folder.config().with_max_document(ByteSize::new(4));
    let error = Checklist::new(short).collect(&request()).await.unwrap_err();
    assert!(error.to_string().contains("longer than 4 bytes"), "{error}");
    fs::remove_file(folder.0.path().join("notes.md")).unwrap();
    let gone = folder.collect().await.unwrap_err();
    assert_eq!(gone.retryability(), Retryability::Transient, "{gone:?}");

    // Out of the folder, by name and through a link.
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), NOTES).unwrap();
    let path = outside.path().to_str().unwrap();
    let text = |document: &str| text.replace("\"notes.md\"", &format!("{document:?}"));
    folder
        .refuses(&text(path), "not in the checklist's folder")
        .await;
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(path, folder.0.path().join("link.md")).unwrap();
        folder
            .refuses(&text("link.md"), "not in the checklist's folder")
            .await;
    }
}

#[tokio::test]
async fn a_file_with_a_mistake_is_not_half_a_file() {
    let folder = Folder::new();
    let missing = folder.collect().await.unwrap_err();
    assert_eq!(missing.retryability(), Retryability::Transient);
    let statement = Evidence::new("rita", now(), item("announced", Form::Statement));
    let good = format!("version = 1\n{}", line(&statement, None).unwrap());
    folder.write("checklist.toml", &good);
    assert_eq!(folder.collect().await.unwrap().len(), 1);
    for (old, new, why) in [
        ("version = 1", "version = 2", "this version reads 1"),
        (
            "passed = true",
            "passed = true\nsigned = true",
            "unknown field `signed`",
        ),
        ("passed = true\n", "", "missing field `passed`"),
        (
            "form = \"statement\"",
            "form = \"probe\"",
            "nobody's word counts",
        ),
        (
            "form = \"statement\"",
            "form = \"document\"",
            "`document` is missing",
        ),
        ("by = \"rita\"", "by = \" \"", "`by` is empty"),
        ("2026-11-10T11:00:00Z", "yesterday", "line"),
    ] {
        assert!(good.contains(old), "{old} in {good}");
        folder.refuses(&good.replacen(old, new, 1), why).await;
    }
    // Also in an item of another artefact.
    let other = good.replace(
        &request().artefact.to_string(),
        &Digest::of(b"x").to_string(),
    );
    folder
        .refuses(
            &other.replace("by = \"rita\"", "by = \"\""),
            "`by` is empty",
        )
        .await;
    folder
        .refuses(&" ".repeat((1 << 20) + 1), "longer than")
        .await;
    fs::write(folder.0.path().join("checklist.toml"), [0xff]).unwrap();
    let error = folder.collect().await.unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}

#[test]
fn only_items_that_make_sense_are_written() {
    let backup = Fact::Backup { name: "x".into() };
    let error = line(&Evidence::new("x", now(), backup), None).unwrap_err();
    assert!(error.to_string().contains("only evidence of an item"));
    assert!(line(&notes(), None).is_err());
}
