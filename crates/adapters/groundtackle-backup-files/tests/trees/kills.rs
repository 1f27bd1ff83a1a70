//! Processes that are killed in the middle of a backup or a restore.

use std::env;
use std::process::{Child, Stdio};
use std::time::Duration;

use groundtackle_backup::Trust;
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};

use super::*;

const WORK: &str = "GROUNDTACKLE_TEST_VICTIM";

async fn opened(folder: &Path, signer: &SigningKey) -> Repository {
    let target = FsTarget::open(folder.join("repository"), FsTargetConfig::default());
    let target = Arc::new(target.await.unwrap());
    let trust = Trust::new([signer.public()]).unwrap();
    Repository::open(target, trust).await.unwrap()
}

/// What the victim does until it is done or dead.
async fn work(what: &str, folder: &Path) {
    let signer = SigningKey::from_seed(&[7; 32]);
    let repository = opened(folder, &signer).await;
    if what == "restore" {
        let points = repository.points().await.unwrap();
        let latest = points.tree("files", TreeAt::Latest).unwrap();
        let into = folder.join("restored");
        let options = RestoreOptions::default();
        restore(&repository, latest, &Named("reader"), &into, options)
            .await
            .unwrap();
        return;
    }
    let how = BackUp {
        stream: "files",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 2,
    };
    let config = FilesConfig::new(folder.join("tree")).with_state(folder.join("state"));
    FilesBackup::new(config)
        .unwrap()
        .back_up(&repository, &how, false)
        .await
        .unwrap();
}

fn start(what: &str, folder: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["kills::killed_at_any_moment", "--exact", "--nocapture"])
        .env(WORK, format!("{what} {}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn killed_at_any_moment() {
    let runtime = runtime();
    if let Ok(asked) = env::var(WORK) {
        let (what, folder) = asked.split_once(' ').unwrap();
        return runtime.block_on(work(what, Path::new(folder)));
    }
    let kills: u64 = env::var("GROUNDTACKLE_TEST_KILLS").map_or(60, |kills| kills.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let (tree, into) = (folder.path().join("tree"), folder.path().join("restored"));
    fs::create_dir(&tree).unwrap();
    for number in 0..40 {
        fs::write(tree.join(number.to_string()), noise(number, 500_000)).unwrap();
    }
    let signer = SigningKey::from_seed(&[7; 32]);
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    runtime.block_on(async {
        let config = FsTargetConfig::default().with_create(true);
        let target = FsTarget::open(folder.path().join("repository"), config)
            .await
            .unwrap();
        Repository::init(Arc::new(target), "main", &signer, clock, entropy)
            .await
            .unwrap();
    });
    // How long one takes that is not killed.
    let timed = |what: &str| {
        let begun = std::time::Instant::now();
        assert!(
            start(what, folder.path()).wait().unwrap().success(),
            "{what}"
        );
        begun.elapsed()
    };
    timed("back-up");
    let mut listed = vec![shown(&tree)];
    fs::write(tree.join("0"), noise(99, 500_000)).unwrap();
    // The first one takes longer than those that follow.
    let mut took = [timed("back-up"), timed("restore")];
    listed.push(shown(&tree));
    assert_eq!(shown(&into), listed[1]);
    fs::remove_dir_all(&into).unwrap();
    let (mut killed, mut whole) = ([0, 0], 0);
    for round in 0..kills {
        let restores = round % 2;
        if restores == 0 {
            fs::write(
                tree.join((round % 40).to_string()),
                noise(round + 100, 500_000),
            )
            .unwrap();
        }
        let what = ["back-up", "restore"][restores as usize];
        let mut child = start(what, folder.path());
        // Somewhere within the time that it takes.
        let part = (round * 7_919 + 1_009) % 10_000;
        let wait = took[restores as usize] * u32::try_from(part).unwrap() / 10_000;
        thread::sleep(wait.max(Duration::from_millis(1)));
        child.kill().unwrap();
        match child.wait().unwrap().success() {
            false => killed[restores as usize] += 1,
            // Timed while the machine had more to do.
            true => took[restores as usize] = took[restores as usize] * 9 / 10,
        }
        let points = runtime
            .block_on(async { opened(folder.path(), &signer).await.points().await.unwrap() });
        assert!(points.unusable.is_empty(), "{points:?}");
        if points.usable.len() > listed.len() {
            listed.push(shown(&tree));
        }
        assert_eq!(points.usable.len(), listed.len(), "listed once");
        if into.exists() {
            assert_eq!(
                shown(&into),
                *listed.last().unwrap(),
                "round {round}: whole or not there"
            );
            fs::remove_dir_all(&into).unwrap();
            whole += 1;
        }
    }
    // Every restore point that was ever listed.
    runtime.block_on(async {
        let repository = opened(folder.path(), &signer).await;
        let points = repository.points().await.unwrap();
        for (point, as_it_was) in points.usable.iter().zip(&listed) {
            let options = RestoreOptions::default();
            restore(&repository, point, &Named("reader"), &into, options)
                .await
                .unwrap();
            assert_eq!(shown(&into), *as_it_was);
            fs::remove_dir_all(&into).unwrap();
        }
    });
    println!(
        "{killed:?} killed, {whole} restores came through, {} restore points",
        listed.len()
    );
    assert!(killed[0] > 10 && killed[1] > 10, "{killed:?}");
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left.contains(&".restored.restoring".into()),
        "the last restore took what was left: {left:?}"
    );
}
