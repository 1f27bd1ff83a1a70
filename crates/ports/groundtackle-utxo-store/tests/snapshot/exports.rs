//! What is exported, and what is not.

use super::*;

#[tokio::test]
async fn a_file_that_is_there_stays() {
    let (folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 3).await;
    fs::write(&path, "mine").unwrap();
    let before = |_| panic!("nothing is read");
    let answer = export_snapshot(&*from, &path, &regtest(), before).await;
    assert_fails!(answer, Exists { .. });
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let mut options = regtest();
    options.replace = true;
    export_snapshot(&*from, &path, &options, |_| {})
        .await
        .unwrap();
    assert!(fs::read(&path).unwrap().starts_with(b"utxo\xff"));

    // It comes while the set is read.
    let late = folder.path().join("late");
    let come = |_| fs::write(&late, "mine").unwrap();
    let answer = export_snapshot(&*from, &late, &regtest(), come).await;
    assert_fails!(answer, Exists { .. });
    assert_eq!(fs::read(&late).unwrap(), b"mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    let answer = export(&*from, &folder.path().join("gone/file")).await;
    assert_fails!(&answer, Io { .. });
    assert_eq!(answer.unwrap_err().retryability(), Retryability::Permanent);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_may_be_read_as_the_umask_says() {
    use std::os::unix::fs::MetadataExt as _;
    let (_folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 3).await;
    export(&*from, &path).await.unwrap();
    fs::write(path.with_extension("other"), "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&path), mode(&path.with_extension("other")));
}

#[tokio::test]
async fn only_a_whole_set_of_one_moment_is_exported() {
    let (folder, path) = folder();
    let invalid = |answer: Result<Exported, SnapshotError>, says: &str| match answer {
        Err(SnapshotError::Store(Error::InvalidRequest { what })) if what.contains(says) => {}
        other => panic!("{says}: {other:?}"),
    };
    invalid(export(&MemoryUtxoStore::new(), &path).await, "no tip");

    // It moves on while it is read.
    for ordered in [false, true] {
        let from = match ordered {
            false => filled(unordered(), 5_000).await,
            true => filled(MemoryUtxoStore::new(), 5_000).await,
        };
        let moved = Tip { height: 10, ..TIP };
        let mut done = false;
        let file = folder
            .path()
            .join(if ordered { "ordered" } else { "unordered" });
        let writer = Arc::clone(&from);
        let answer = export_snapshot(&*from, &file, &regtest(), |_| {
            if !std::mem::replace(&mut done, true) {
                let writer = Arc::clone(&writer);
                let set = async move { writer.set_tip(&moved).await.unwrap() };
                std::thread::scope(|scope| {
                    let run = || {
                        tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()
                            .unwrap()
                            .block_on(set)
                    };
                    scope.spawn(run).join().unwrap();
                });
            }
        })
        .await;
        match ordered {
            // The scan is of one moment, so it does not matter.
            true => assert_eq!(answer.unwrap().tip, TIP),
            false => invalid(answer, "moved on"),
        }
        assert_eq!(file.exists(), ordered);
    }

    // A rule that lets more outputs live than Bitcoin Core's.
    let from = MemoryUtxoStore::with_rule(UnspendableRule::FalseReturn);
    let long = NewRecord::Seed {
        txid: txid(1),
        coinbase: false,
        height: 1,
        outputs: vec![(
            0,
            TxOut {
                value_sat: 1,
                script: vec![0x6a].into(),
            },
        )],
    };
    from.create(&[long]).await.unwrap().remove(0).unwrap();
    from.set_tip(&TIP).await.unwrap();
    let error = export(&from, &path).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(&format!("{}:0", txid(1))), "{source}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the ordered one"
    );
}

/// Its scans give a changed first page, and the tip moves with it.
#[derive(Debug)]
struct Changing {
    store: Arc<dyn UtxoStore>,
    change: fn(&mut Vec<Coin>),
    move_tip: bool,
    /// Whether a block comes before every digest.
    busy: bool,
}

#[derive(Debug)]
struct ChangingScan {
    scan: Box<dyn SetScan>,
    store: Arc<dyn UtxoStore>,
    change: fn(&mut Vec<Coin>),
    move_tip: bool,
}

impl Changing {
    const fn inner(&self) -> &Arc<dyn UtxoStore> {
        &self.store
    }
}

async fn move_tip(store: &dyn UtxoStore) {
    let tip = store.tip().await.unwrap().unwrap();
    let height = tip.height + 1;
    store.set_tip(&Tip { height, ..tip }).await.unwrap();
}

macro_rules! changing {
    ($self:ident, scan, $name:ident, $items:expr, || $call:expr) => {
        $call.await.map(|scan| {
            let (store, change, move_tip) =
                (Arc::clone(&$self.store), $self.change, $self.move_tip);
            Box::new(ChangingScan {
                scan,
                store,
                change,
                move_tip,
            }) as Box<dyn SetScan>
        })
    };
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {{
        if $self.busy && stringify!($name) == "digest" {
            move_tip(&$self.store).await;
        }
        $call.await
    }};
}

forward_store!([] Changing, inner, changing);

#[async_trait]
impl SetScan for ChangingScan {
    fn tip(&self) -> Option<Tip> {
        self.scan.tip()
    }

    fn partitions(&self) -> u32 {
        self.scan.partitions()
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>, Error> {
        let mut page = self.scan.page(partition, after, limit).await?;
        if !page.items.is_empty() && after.is_none() {
            (self.change)(&mut page.items);
            if self.move_tip {
                move_tip(&self.store).await;
            }
        }
        Ok(page)
    }
}

/// "Compared with the store's digest": whatever the scan, and wherever the tip is by then.
#[tokio::test]
async fn what_a_scan_gets_wrong_is_not_exported() {
    let (folder, path) = folder();
    let changes: [fn(&mut Vec<Coin>); 4] = [
        |_| {},
        |coins| drop(coins.pop()),
        |coins| coins[0].output.value_sat += 1,
        |coins| coins[0].height += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for (snapshot, move_tip) in [(true, false), (true, true), (false, false), (false, true)] {
            // The coin that changes is its transaction's only one.
            let store = match snapshot {
                true => filled(MemoryUtxoStore::new(), 1).await,
                false => filled(unordered(), 1).await,
            };
            let from = Changing {
                store,
                change,
                move_tip,
                busy: false,
            };
            let answer = export(&from, &path).await;
            let copied = copy_set(&from, &MemoryUtxoStore::new(), |_| {}).await;
            let case = format!("{number} {snapshot} {move_tip}: {answer:?} {copied:?}");
            match (number, snapshot, move_tip) {
                (0, true, _) | (0, _, false) => {
                    answer.unwrap();
                    copied.unwrap();
                    fs::remove_file(&path).unwrap();
                }
                (_, _, false) => {
                    assert_fails!(answer, Store(Error::Corrupt { .. }));
                    assert!(matches!(copied, Err(Error::Corrupt { .. })), "{case}");
                }
                // It can't be told from what something else wrote.
                (_, _, true) => {
                    assert_fails!(answer, Store(Error::InvalidRequest { .. }));
                    assert!(
                        matches!(copied, Err(Error::InvalidRequest { .. })),
                        "{case}"
                    );
                }
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{case}");
        }
    }

    let store = filled(MemoryUtxoStore::new(), 1).await;
    let busy = Changing {
        store,
        change: |_| {},
        move_tip: false,
        busy: true,
    };
    let error = export(&busy, &path).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_interrupted_export_leaves_nothing() {
    let (folder, path) = folder();
    let from = filled(MemoryUtxoStore::new(), 5_000).await;
    for step in [SnapshotStep::Scan, SnapshotStep::Check] {
        let reached = std::sync::atomic::AtomicBool::new(false);
        let options = regtest();
        {
            let mut export = pin!(export_snapshot(&*from, &path, &options, |progress| {
                if progress.step == step {
                    reached.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            }));
            std::future::poll_fn(|context| {
                assert!(export.as_mut().poll(context).is_pending());
                match reached.load(std::sync::atomic::Ordering::Relaxed) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    export(&*from, &path).await.unwrap();
}
