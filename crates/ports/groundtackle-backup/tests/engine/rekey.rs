//! Other readers for what is there.

use groundtackle_backup::{MIN_GRACE, PruneOptions};

use super::kept::Kept;
use super::*;

async fn opens(repository: &Repository, reader: &'static str) -> Result<()> {
    let points = repository.points().await?;
    let plan = points.plan("set", At::Latest)?;
    let (keys, mut into) = (Named(reader), Into::default());
    let restored = repository.restore(&plan, &keys, &mut into, 1).await;
    restored.map(drop)
}

#[tokio::test]
async fn a_new_identity_reads_what_was_wrapped_anew_and_no_data_is_written() {
    let mut kept = Kept::new(1).await;
    kept.base(3).await;
    kept.delta(3..9).await;
    let place = &kept.place;
    let packs = kept.keys("packs/").await;
    let error = opens(&place.repository, "new").await.unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    for (manifest, _) in &kept.listed {
        // Who can't read it can't wrap it either.
        let (strange, new) = (Named("strange"), Named("new"));
        let rekeyed = place
            .repository
            .rekey(manifest, &strange, &new, &place.signer);
        assert!(matches!(rekeyed.await, Err(Error::WrongKey { .. })));
        let reader = Named("reader");
        let rekeyed = place
            .repository
            .rekey(manifest, &reader, &new, &place.signer);
        rekeyed.await.unwrap();
    }
    assert_eq!(kept.keys("packs/").await, packs);
    opens(&place.repository, "new").await.unwrap();
    // By the manifest, as the docs say.
    opens(&place.repository, "reader").await.unwrap();

    // And on from there, without the first one.
    for (manifest, _) in &kept.listed {
        let (new, third) = (Named("new"), Named("third"));
        let rekeyed = place
            .repository
            .rekey(manifest, &new, &third, &place.signer);
        rekeyed.await.unwrap();
        let removed = place.repository.remove_old_wrappings(manifest, &new).await;
        assert!(matches!(removed, Err(Error::WrongKey { .. })));
        let removed = place
            .repository
            .remove_old_wrappings(manifest, &third)
            .await;
        assert_eq!(removed.unwrap(), 1);
    }
    opens(&place.repository, "third").await.unwrap();
    let error = opens(&place.repository, "new").await.unwrap_err();
    assert!(error.to_string().contains("third, reader"), "{error}");
    assert!(place.repository.passed_over().is_empty());
}

#[tokio::test]
async fn wrappings_by_nobody_who_is_trusted_are_ignored_and_reported() {
    let mut kept = Kept::new(1).await;
    kept.base(3).await;
    let place = &kept.place;
    let manifest = &kept.listed[0].0;
    let (reader, new) = (Named("reader"), Named("new"));
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let error = place
        .repository
        .rekey(manifest, &reader, &new, &stranger)
        .await;
    assert!(error.unwrap_err().to_string().contains("not among those"));
    let trust = Trust::new([place.signer.public(), stranger.public()]).unwrap();
    let fooled = Repository::open(Arc::new(place.target.clone()), trust)
        .await
        .unwrap();
    let object = fooled
        .rekey(manifest, &reader, &new, &stranger)
        .await
        .unwrap();
    opens(&fooled, "new").await.unwrap();
    assert!(fooled.passed_over().is_empty());
    let error = opens(&place.repository, "new").await.unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    let passed = place.repository.passed_over();
    assert!(passed[0].what.contains(object.as_str()), "{passed:?}");
    assert!(
        passed[0].error.contains("not signed by a trusted key"),
        "{passed:?}"
    );
    opens(&place.repository, "reader").await.unwrap();
    // Damaged, and in another one's place, likewise.
    let good = place
        .repository
        .rekey(manifest, &reader, &new, &place.signer)
        .await
        .unwrap();
    let body = place.body(&good).await;
    for (key, body) in [(&good, body[1..].to_vec()), (&object, body.clone())] {
        place.put(key, body).await;
    }
    place.repository.passed_over();
    let error = opens(&place.repository, "new").await.unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    assert_eq!(place.repository.passed_over().len(), 2);
}

#[tokio::test]
async fn a_wrapping_of_another_key_does_not_hide_the_right_one() {
    let mut kept = Kept::new(1).await;
    kept.base(3).await;
    #[derive(Debug)]
    struct Another;
    impl KeyWrapping for Another {
        fn wrap(&self, _: &DataKey) -> Result<WrappedKey> {
            Named("reader").wrap(&DataKey::from_bytes([9; 32]))
        }
    }
    let place = &kept.place;
    let manifest = &kept.listed[0].0;
    let reader = Named("reader");
    place
        .repository
        .rekey(manifest, &reader, &Another, &place.signer)
        .await
        .unwrap();
    opens(&place.repository, "reader").await.unwrap();
    let removed = place
        .repository
        .remove_old_wrappings(manifest, &reader)
        .await;
    assert!(matches!(removed, Err(Error::Corrupt { .. })), "{removed:?}");
}

#[tokio::test]
async fn wrappings_go_with_their_restore_points() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(3).await;
    kept.base(9).await;
    for (manifest, _) in &kept.listed {
        let (reader, new) = (Named("reader"), Named("new"));
        let place = &kept.place;
        place
            .repository
            .rekey(manifest, &reader, &new, &place.signer)
            .await
            .unwrap();
    }
    kept.forget(&[first]).await;
    kept.clock.pass(MIN_GRACE * 2);
    let pruned = kept
        .place
        .repository
        .prune(&PruneOptions::new())
        .await
        .unwrap();
    assert_eq!(pruned.points, 1);
    assert_eq!(kept.keys("keys/").await.len(), 1);
    opens(&kept.place.repository, "new").await.unwrap();
}
