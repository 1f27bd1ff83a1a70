//! What is out of order, damaged, gone or out of reach: named, refused, and made up for where others have the same.

use groundtackle_backup_testkit::{Call, Fault, Faulty};

use super::*;

/// A source that gives segments out of order or of another kind is not listed; signed all the same, it is not read.
#[tokio::test]
async fn segments_belong_to_the_blocks_in_order() {
    let place = Place::new().await;
    let blocks = chain(8, Vec::new(), 1);
    place.back_up(Numbers::base(&blocks[0])).await.unwrap();
    let content = || Numbers::delta(&blocks).end.unwrap().content;
    let mut reversed = changes(&blocks[1..]);
    reversed.reverse();
    let beyond = changes(&chain(2, blocks.clone(), 1)[1..]);
    let mut backwards = changes(&blocks[1..]);
    backwards[0].info.heights = Some((2, 1));
    let parts = [changes(&blocks[1..]), numbers(&blocks[0].after)].concat();
    let mut of_another_codec = numbers(&blocks[0].after);
    of_another_codec[0].info.codec = "changes".into();
    let mixed = [changes(&blocks[5..]), of_another_codec].concat();
    let mut during = Numbers::read_during(&blocks[4].after, &blocks[5..], &blocks[7]);
    let during = during.end.take().unwrap().content;
    for (segments, content) in [
        (reversed, content()),
        (beyond, content()),
        (backwards, content()),
        (parts, content()),
        (
            changes(&blocks[1..]),
            Numbers::base(&blocks[0]).end.unwrap().content,
        ),
        (mixed, during),
    ] {
        let error = place.back_up(Numbers::new(segments, content)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Incomplete { .. }), "{error:?}");
    }
    assert_eq!(place.points().await.len(), 1);

    let mut manifest = place.back_up(Numbers::delta(&blocks)).await.unwrap();
    let Content::Delta { blocks: listed, .. } = &mut manifest.content else {
        panic!("another content");
    };
    listed.pop();
    let object = manifest.object().unwrap();
    place
        .put(&object, manifest.sign(&place.signer).unwrap())
        .await;
    let error = place.restore(At::Latest).await.unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { detail, .. } if detail.contains("order of its blocks")),
        "{error:?}"
    );
}

/// The blocks of a restore point whose objects are damaged or gone are taken from others that have some of them each.
#[tokio::test]
async fn changes_come_from_whoever_has_them_whole() {
    let place = Place::new().await;
    let blocks = chain(20, Vec::new(), 1);
    place.back_up(Numbers::base(&blocks[0])).await.unwrap();
    place.back_up(Numbers::base(&blocks[19])).await.unwrap();
    let first = place.back_up(Numbers::delta(&blocks)).await.unwrap();
    let some = place.back_up(Numbers::delta(&blocks[..12])).await.unwrap();
    let rest = place.back_up(Numbers::delta(&blocks[10..])).await.unwrap();
    let pack = |point: &Manifest| groundtackle_backup::Pack::key(&point.packs[0].id).unwrap();
    let restore = async |base: usize, wanted: usize| {
        let points = place.points().await;
        let points: Vec<_> = points
            .into_iter()
            .filter(|point| match &point.content {
                Content::Base { position, .. } => position.height == base as u32,
                _ => true,
            })
            .collect();
        let plan = Plan::find(
            &points,
            "set",
            At::Block(blocks[wanted].entry.position.hash),
        );
        let (plan, mut into) = (plan.unwrap(), Into::default());
        let keys = Named("reader");
        let restored = place.repository.restore(&plan, &keys, &mut into, 2).await?;
        assert_eq!(into.set, blocks[wanted].after);
        Ok::<_, Error>(restored.passed_over)
    };
    for (base, wanted) in [(0, 18), (19, 1)] {
        assert!(restore(base, wanted).await.unwrap().is_empty());
    }
    // In the first segment, in one after it, in the index: nothing of it is applied before.
    let whole = place.body(&pack(&first)).await;
    for at in [10, 400, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        place.put(&pack(&first), damaged).await;
        for (base, wanted) in [(0, 18), (19, 1)] {
            match &restore(base, wanted).await.unwrap()[..] {
                [Error::Corrupt { object, .. }] => {
                    assert!(object.contains(pack(&first).as_str()), "{object}");
                }
                other => panic!("{at}: {other:?}"),
            }
        }
    }
    place.target.remove(&pack(&first)).await.unwrap().unwrap();
    let passed_over = restore(0, 18).await.unwrap();
    assert!(
        matches!(&passed_over[..], [Error::Missing { .. }]),
        "{passed_over:?}"
    );
    // Nobody has the last blocks any more.
    place.target.remove(&pack(&rest)).await.unwrap().unwrap();
    let error = restore(0, 18).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    assert_eq!(restore(0, 5).await.unwrap().len(), 1);
    place.target.remove(&pack(&some)).await.unwrap().unwrap();
    assert!(restore(0, 5).await.is_err());
}

/// One object that the target can't read leaves the others of use, as far as it can't matter.
#[tokio::test]
async fn what_can_t_be_read_is_told_and_what_depends_on_it_refused() {
    let blocks = chain(20, Vec::new(), 1);
    let place = Place::new().await;
    place.back_up(Numbers::base(&blocks[3])).await.unwrap();
    place.back_up(Numbers::delta(&blocks[3..9])).await.unwrap();
    place.back_up(Numbers::delta(&blocks[8..])).await.unwrap();
    let trust = Trust::new([place.signer.public()]).unwrap();
    let unread = |number: u64| {
        let target = Faulty::new(place.target.clone(), 1);
        // The descriptor comes before.
        target.fail_at(Call::Read, number + 2, Fault::Fail);
        Repository::open(Arc::new(target), trust.clone())
    };
    let keys = Named("reader");
    for number in 0..3 {
        let repository = unread(number).await.unwrap();
        let mut points = repository.points().await.unwrap();
        assert_eq!(points.usable.len(), 2);
        let (object, error) = &points.unusable[0];
        assert!(!error.is_about_data(), "{error:?}");
        assert!(object.as_str().starts_with("points/"), "{object}");
        // The last one is unknown only where it may be that.
        let latest = points.plan("set", At::Latest);
        match number {
            2 => {
                let error = latest.unwrap_err().to_string();
                assert!(error.contains("name a block"), "{error}");
            }
            1 => assert!(latest.unwrap_err().to_string().contains("blocks between")),
            _ => assert!(latest.unwrap_err().to_string().contains("base")),
        }
        assert_eq!(points.expect_last("set").is_err(), number == 2);
        let repository = unread(number).await.unwrap();
        let points = repository.points().await.unwrap();
        let error = points.plan("set", At::Height(3)).unwrap_err();
        assert!(error.to_string().contains("name a block"), "{error}");
        let named = points.plan("set", At::Block(blocks[3].entry.position.hash));
        if number == 0 {
            assert!(matches!(named, Err(Error::Unreachable { .. })));
            continue;
        }
        let (plan, mut into) = (named.unwrap(), Into::default());
        let restored = repository.restore(&plan, &keys, &mut into, 1);
        assert!(restored.await.unwrap().passed_over.is_empty());
        assert_eq!(into.set, blocks[3].after);
    }
    // A target that reads nothing is no repository of unknown points, nor one that fails on and on.
    let target = Faulty::new(place.target.clone(), 1);
    let target = Arc::new(target);
    let repository = Repository::open(target.clone(), trust.clone())
        .await
        .unwrap();
    target.fail_often(Call::Read, 1_000_000, Fault::Fail);
    let error = repository.points().await.unwrap_err();
    assert!(!error.is_about_data(), "{error:?}");
    for block in &blocks[4..14] {
        place.back_up(Numbers::base(block)).await.unwrap();
    }
    target.heal();
    for number in 0..9 {
        target.fail_at(Call::Read, number + 1, Fault::Fail);
    }
    let error = repository.points().await.unwrap_err();
    assert!(!error.is_about_data(), "{error:?}");
}
