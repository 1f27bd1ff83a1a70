//! Reads beside changes: what is seen is what counts, and whole.

use super::*;

/// A value whose length is a lie costs one call, and not as many as it would have parts.
#[test]
fn a_value_ends_at_the_first_hole() {
    runtime().block_on(async {
        let (cells, _) = begun().await;
        let txid = Txid::from_bytes([7; 32]);
        let page = Page {
            attempt: 7,
            phase: Phase::Live,
            guard: Guard::default(),
            unmined_since: None,
            head: Some(Stored::Apart {
                id: 7,
                len: 1 << 40,
            }),
            slots: std::collections::BTreeMap::new(),
        };
        let write = Write {
            key: CellKey::Page { txid, page: 0 },
            expect: None,
            cell: Some(Cell {
                stamp: 7,
                lock: None,
                body: Some(Body::Page(page)),
            }),
        };
        cells.write(&[write]).await.unwrap();
        let parts = Arc::new(AtomicUsize::new(0));
        let count = parts.clone();
        let store = Store::new(
            cells.with_faults(move |key| {
                let is_part = matches!(key, CellKey::Part { .. });
                count.fetch_add(usize::from(is_part), Ordering::Relaxed);
                StepFault::None
            }),
            config(),
        );
        let error = store.records(&[txid], Fields::META).await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Permanent);
        let parts = parts.load(Ordering::Relaxed);
        assert!(parts <= 64, "{parts} parts were asked for");
    });
}

/// A process ends at each step of giving outputs back, which changes all pages of a record. Who looks then
/// sees all of its outputs, though nobody has recovered.
#[test]
fn a_record_is_never_seen_in_part() {
    runtime().block_on(async {
        let (before, store) = begun().await;
        let seed = TxBuilder::new(1).pay_each(2, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let coin = OutPoint::new(seed.txid(), 0);
        let wide = TxBuilder::new(2).spend(coin).pay_each(600, 1).build();
        let new = [NewTransaction::from(wide.clone())];
        let options = SpendOptions::at(201);
        let answers = store.spend_and_create(&new, &options).await.unwrap();
        assert_eq!(answers, [Ok(Applied::Now)]);
        store.mark_conflicting(&[wide.txid]).await.unwrap();
        for last in 0.. {
            let cells = before.copy();
            let (victim, died) = mortal(&cells, last);
            let answered = victim.unspend(&[wide.txid]).await;
            let next = Store::new(cells, config());
            let records = next.records(&[wide.txid], Fields::ALL).await.unwrap();
            let outputs = records[0].as_ref().unwrap().outputs.len();
            assert_eq!(outputs, 600, "step {last}");
            let far = OutPoint::new(wide.txid, 599);
            assert!(
                next.outputs(&[far]).await.unwrap()[0].is_ok(),
                "step {last}"
            );
            if !died.load(Ordering::Relaxed) {
                answered.unwrap()[0].clone().unwrap();
                return;
            }
        }
    });
}

/// The pages of a record change between two reads of a call that is going to change it.
#[test]
fn a_record_that_changes_while_it_is_read_is_read_again() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seed = TxBuilder::new(1).pay_each(2, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let wide = TxBuilder::new(2).spend(OutPoint::new(seed.txid(), 0));
        let wide = wide.pay_each(600, 1).build();
        let new = [NewTransaction::from(wide.clone())];
        store
            .spend_and_create(&new, &SpendOptions::at(201))
            .await
            .unwrap();
        store.mark_conflicting(&[wide.txid]).await.unwrap();
        let (other, txid) = (store.clone(), wide.txid);
        let unspend = move || {
            let other = other.clone();
            beside(move || async move {
                assert_eq!(other.unspend(&[txid]).await.unwrap(), [Ok(Applied::Now)]);
            });
        };
        let second = move |key| key == CellKey::Page { txid, page: 1 };
        let late = interrupted(&cells, second, 0, unspend, Duration::from_millis(2));
        let locked = late.set_locked(&[txid], true).await.unwrap();
        assert_eq!(locked, [Ok(Applied::Now)]);
    });
}

/// Tip, the one before it and the digest are of one moment, also after a block was taken back and its owner died.
#[test]
fn the_chain_is_seen_as_it_counts() {
    runtime().block_on(async {
        let (before, store) = begun().await;
        let tip = store.tip().await.unwrap();
        let block = BlockBuilder::after(tip).build();
        store.connect_block(&block).await.unwrap().unwrap();
        for last in 0.. {
            let cells = before.copy();
            let (victim, died) = mortal(&cells, last);
            let _ = victim.disconnect_block(&block.hash, &block.previous).await;
            let next = Store::new(cells, config());
            let now = next.tip().await.unwrap();
            let connected = now.is_some_and(|now| now.hash == block.hash);
            assert_eq!(
                next.previous_tip().await.unwrap().is_some(),
                connected,
                "step {last}"
            );
            if !died.load(Ordering::Relaxed) {
                assert!(!connected);
                return;
            }
        }
    });
}
