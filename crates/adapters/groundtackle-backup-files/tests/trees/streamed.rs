//! Trees that a stream brings: what can't be one is refused, and nothing of it is listed.

use std::io::{self, Cursor, Read};
use std::sync::mpsc;

use groundtackle_backup_files::{EntryAttributes, StreamedBackup, StreamedTree};

use super::*;

const ATTRIBUTES: fn(u32) -> EntryAttributes = |mode| {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    EntryAttributes::new(mode, user.as_raw(), group.as_raw(), 1_600_000_000)
};

async fn fill(
    place: &Place,
    fill: impl FnOnce(&mut StreamedTree<'_>) -> Result<()> + Send + 'static,
) -> Result<Made> {
    let how = BackUp {
        stream: "files",
        wrapping: &Named("reader"),
        signer: &place.signer,
        workers: 2,
    };
    let backup = StreamedBackup::new(Some(place.path("state")));
    backup.back_up(&place.repository, &how, false, fill).await
}

fn text(tree: &mut StreamedTree<'_>, path: &str, content: &[u8]) -> Result<()> {
    let count = tree.file(
        path.as_bytes(),
        ATTRIBUTES(0o640),
        &mut Cursor::new(content),
    )?;
    assert_eq!(count, content.len() as u64);
    Ok(())
}

fn directory(tree: &mut StreamedTree<'_>, path: &str) -> Result<()> {
    tree.directory(path.as_bytes(), ATTRIBUTES(0o750))
}

/// In whatever order it comes.
#[test]
fn a_stream_becomes_a_tree() {
    runtime().block_on(async {
        let place = Place::new().await;
        let made = fill(&place, |tree| {
            text(tree, "a/b/late", b"before its directory")?;
            tree.symlink(b"a/link", ATTRIBUTES(0o777), b"b/late")?;
            text(tree, "z", &noise(4, 5_000_000))?;
            text(tree, "empty", b"")?;
            directory(tree, "a/b")?;
            directory(tree, "a")?;
            // By its bytes before what is in a.
            text(tree, "a-b", b"between")?;
            directory(tree, "")
        });
        let made = made.await.unwrap();
        assert_eq!(made.files_read, 4);
        let into = place.path("restored");
        assert_eq!(place.restore(&made.manifest, &into).await.unwrap(), 8);
        assert_eq!(
            fs::read(into.join("a/link")).unwrap(),
            b"before its directory"
        );
        assert_eq!(fs::read(into.join("z")).unwrap(), noise(4, 5_000_000));
        let mode = |path: &str| fs::metadata(into.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a/b"), mode("z")), (0o750, 0o640));
        assert_eq!(fs::metadata(into.join("z")).unwrap().mtime(), 1_600_000_000);
    });
}

#[test]
fn what_is_no_tree_is_refused_by_its_name() {
    type Fill = fn(&mut StreamedTree<'_>) -> Result<()>;
    let cases: [(Fill, &str); 13] = [
        (|_| Ok(()), "the directory itself is not there"),
        (|tree| directory(tree, "a"), "a is in no directory"),
        (
            |tree| text(tree, "", b"x"),
            "the directory itself is no directory",
        ),
        (
            |tree| tree.symlink(b"", ATTRIBUTES(0o777), b"/"),
            "the directory itself is no directory",
        ),
        (
            |tree| {
                directory(tree, "")?;
                directory(tree, "")
            },
            "the directory itself comes twice",
        ),
        (
            |tree| {
                directory(tree, "")?;
                text(tree, "x", b"one")?;
                directory(tree, "a")?;
                text(tree, "x", b"two")
            },
            "x comes twice",
        ),
        (
            |tree| {
                directory(tree, "")?;
                text(tree, "x", b"")?;
                directory(tree, "x")
            },
            "x comes twice",
        ),
        (
            |tree| {
                directory(tree, "")?;
                text(tree, "a/x", b"")
            },
            "a/x is in no directory",
        ),
        (
            |tree| {
                directory(tree, "")?;
                text(tree, "f", b"")?;
                text(tree, "f/x", b"")
            },
            "f/x is in no directory",
        ),
        (
            |tree| {
                directory(tree, "")?;
                tree.symlink(b"l", ATTRIBUTES(0o777), b"/etc")?;
                text(tree, "l/x", b"")
            },
            "l/x is in no directory",
        ),
        (
            |tree| {
                directory(tree, "")?;
                directory(tree, "a")?;
                // In the order of their bytes it comes between a and what is in it.
                directory(tree, "a-b")?;
                text(tree, "a/b/c", b"")
            },
            "a/b/c is in no directory",
        ),
        (
            |_| {
                Err(Error::Incomplete {
                    detail: "whoever fills it failed".into(),
                })
            },
            "whoever fills it failed",
        ),
        (
            |tree| {
                directory(tree, "")?;
                let mut broken = Cursor::new(noise(5, 9_000_000)).chain(Broken);
                tree.file(b"cut", ATTRIBUTES(0o600), &mut broken).map(drop)
            },
            "reading cut",
        ),
    ];
    runtime().block_on(async {
        let place = Place::new().await;
        for (number, (what, says)) in cases.into_iter().enumerate() {
            let error = fill(&place, what).await.unwrap_err();
            assert!(error.to_string().contains(says), "{number}: {error}");
        }
        for path in [
            "..",
            "../x",
            "a/../../x",
            "/x",
            "a//x",
            "./x",
            ".",
            "x/",
            "nul\0",
        ] {
            for kind in 0..3 {
                let error = fill(&place, move |tree| {
                    directory(tree, "")?;
                    directory(tree, "a")?;
                    match kind {
                        0 => text(tree, path, b"x"),
                        1 => directory(tree, path),
                        _ => tree.symlink(path.as_bytes(), ATTRIBUTES(0o777), b"x"),
                    }
                });
                let error = error.await.unwrap_err();
                assert!(
                    matches!(error, Error::Incomplete { .. }),
                    "{path}: {error:?}"
                );
                let says = error.to_string();
                assert!(
                    says.contains("leads out of the tree, or is no path"),
                    "{says}"
                );
            }
        }
        let points = place.repository.points().await.unwrap();
        assert!(points.usable.is_empty() && points.unusable.is_empty());
        // None of them left a state that the next one would begin with.
        let made = fill(&place, |tree| {
            directory(tree, "")?;
            text(tree, "x", b"fine")
        });
        assert!(made.await.unwrap().manifest.content.uses().is_empty());
    });
}

#[derive(Debug)]
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("it broke"))
    }
}

#[test]
fn one_that_was_given_up_is_told_so() {
    runtime().block_on(async {
        let place = Place::new().await;
        let (begins, mut begun) = tokio::sync::mpsc::channel(1);
        let (goes_on, go_on) = mpsc::channel::<()>();
        let (ends, ended) = mpsc::channel();
        let filling = fill(&place, move |tree| {
            directory(tree, "")?;
            begins.blocking_send(()).unwrap();
            // Until it was dropped.
            go_on.recv().unwrap();
            let refused = [
                text(tree, "x", b"x").unwrap_err(),
                directory(tree, "a").unwrap_err(),
            ];
            ends.send(refused.map(|error| error.to_string())).unwrap();
            Ok(())
        });
        {
            tokio::pin!(filling);
            tokio::select! {
                made = &mut filling => panic!("it did not wait: {made:?}"),
                began = begun.recv() => began.unwrap(),
            }
        }
        goes_on.send(()).unwrap();
        for error in ended.recv().unwrap() {
            assert!(error.contains("the backup was given up"), "{error}");
        }
        assert!(place.repository.points().await.unwrap().usable.is_empty());
    });
}
