//! What is out of order, damaged, gone or out of reach: named, refused, and made up for where others have the same.

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
