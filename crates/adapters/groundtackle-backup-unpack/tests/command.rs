//! The command: what it prints, what it leaves behind, how it ends.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test asserts, and does not use all of what tests share"
)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use common::{golden, identity, read, write};
use tempfile::TempDir;

fn run<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> (i32, String, String) {
    let command = env!("CARGO_BIN_EXE_groundtackle-backup-unpack");
    let output = Command::new(command).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn trust() -> String {
    let text = fs::read_to_string(golden().join("chain.txt")).unwrap();
    text.lines().next().unwrap().replace("trust ", "")
}

/// As it is typed, with the paths filled in.
fn typed(line: &str, folder: &TempDir) -> (i32, String, String) {
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let fill = |word: &str| {
        word.replace("REPO", &path("repository"))
            .replace("OUT", &path("coins.csv"))
            .replace("ID", identity().to_str().unwrap())
            .replace("KEY", &trust())
    };
    run(line.split(' ').map(fill))
}

fn place() -> TempDir {
    let folder = TempDir::new().unwrap();
    let objects = read(&golden().join("chain"));
    write(&objects, &folder.path().join("repository"));
    folder
}

const UNPACK: &str = "unpack --repository REPO --trust KEY --identity ID --out OUT --at";

#[test]
fn sets_are_listed_and_unpacked() {
    let folder = place();
    let (code, listed, _) = typed("list --repository REPO --trust KEY", &folder);
    assert_eq!(code, 0);
    assert!(
        listed.contains(" set base ") && listed.contains(" set delta "),
        "{listed}"
    );
    let hash = "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee";
    for at in ["latest", "170", &format!("block {hash}")] {
        let (code, said, complaint) = typed(&format!("{UNPACK} {at}"), &folder);
        assert_eq!(code, 0, "{complaint}");
        assert!(
            said.contains("171 coins at height 170") && said.contains(hash),
            "{said}"
        );
        let out = folder.path().join("coins.csv");
        assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 172);
        fs::remove_file(out).unwrap();
    }
    let (code, said, _) = typed("--help", &folder);
    assert!(code == 0 && said.contains("--identity"));
}

#[test]
fn failures_have_a_code_and_leave_nothing() {
    let folder = place();
    let nobody = "00".repeat(32);
    let lines = [
        (2, "".to_owned()),
        (2, "restore".into()),
        (2, "list --repository REPO".into()),
        (2, "list --repository REPO --trust KEY --verbose".into()),
        (2, "list --repository REPO --trust KEY --verbose yes".into()),
        (2, "list --repository REPO --trust 12".into()),
        (2, format!("{UNPACK} never")),
        (2, format!("{UNPACK} block 12")),
        (2, format!("{UNPACK} latest --out OUT")),
        (66, format!("{UNPACK} 171")),
        (66, format!("{UNPACK} latest --stream other")),
        (
            66,
            format!("list --repository REPO/points --trust {nobody}"),
        ),
        (77, format!("list --repository REPO --trust {nobody}")),
        (74, UNPACK.replace("OUT", "OUT/none/there") + " latest"),
        (74, UNPACK.replace("ID", "ID.none") + " latest"),
    ];
    for (wanted, line) in lines {
        let (code, _, complaint) = typed(&line, &folder);
        assert_eq!(code, wanted, "{line}: {complaint}");
        assert!(complaint.starts_with("error: "), "{complaint}");
    }
    let first = fs::read_dir(folder.path().join("repository/points")).unwrap();
    let first = first.map(|entry| entry.unwrap().path()).min().unwrap();
    fs::write(first, "{}").unwrap();
    for line in [
        format!("{UNPACK} latest"),
        "list --repository REPO --trust KEY".into(),
    ] {
        let (code, _, complaint) = typed(&line, &folder);
        assert_eq!(code, 65, "{complaint}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
}

/// Wherever a secret is put by mistake, it does not come out.
#[test]
fn secrets_are_not_told() {
    let folder = place();
    let text = fs::read_to_string(identity()).unwrap();
    let secret = text.lines().find(|line| line.starts_with("AGE-")).unwrap();
    let broken = folder.path().join("broken");
    fs::write(&broken, &secret[..50]).unwrap();
    let lines = [
        secret.to_owned(),
        format!("list --repository REPO --trust {secret}"),
        format!("list --repository REPO --trust KEY {secret}"),
        format!("list --repository REPO --trust KEY {secret} {secret}"),
        format!("{UNPACK} {secret}"),
        format!("{UNPACK} block {secret}"),
        UNPACK.replace("ID", broken.to_str().unwrap()) + " latest",
    ];
    for line in lines {
        let (code, said, complaint) = typed(&line, &folder);
        assert_eq!(code, 2, "{complaint}");
        assert!(!(said + &complaint).contains(&secret[20..40]));
    }
}
