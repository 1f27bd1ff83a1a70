//! Listings that are written by hand, as `docs/backup-format.md` has them: a good one, and such as a good writer never makes.

use async_trait::async_trait;
use groundtackle_backup::{
    Content, Hex, Segment, SegmentInfo, SegmentWork, Source, SourceEnd, TreeSummary,
};
use groundtackle_backup_files::replay;

use super::*;

#[derive(Debug)]
struct ByHand {
    segments: std::vec::IntoIter<Segment>,
    end: SourceEnd,
}

#[async_trait]
impl Source for ByHand {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        Ok(self
            .segments
            .next()
            .map(|segment| -> SegmentWork { Box::new(|| Ok(segment)) }))
    }
    async fn finish(&mut self) -> Result<SourceEnd> {
        Ok(self.end.clone())
    }
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn attributes(mode: u32) -> Vec<u8> {
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mut out = Vec::new();
    for number in [mode, user, group] {
        out.extend(number.to_le_bytes());
    }
    out.extend(1_600_000_000_i64.to_le_bytes());
    out.extend(5_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out
}

fn directory(path: &str) -> Vec<u8> {
    [b"d".to_vec(), bytes(path.as_bytes()), attributes(0o755)].concat()
}

fn link(path: &str, to: &str) -> Vec<u8> {
    [
        b"l".to_vec(),
        bytes(path.as_bytes()),
        attributes(0o777),
        bytes(to.as_bytes()),
    ]
    .concat()
}

fn hard(path: &str, to: &str) -> Vec<u8> {
    [b"h".to_vec(), bytes(path.as_bytes()), bytes(to.as_bytes())].concat()
}

const TEXT: &[u8] = b"what is in it";

fn chunk(number: u32, ordinal: u64, offset: usize, count: usize) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.extend(ordinal.to_le_bytes());
    out.extend((offset as u32).to_le_bytes());
    out.extend((count as u32).to_le_bytes());
    out
}

/// The canonical part, and the pieces.
fn file(path: &str, at: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut out = [b"f".to_vec(), bytes(path.as_bytes()), attributes(0o644)].concat();
    out.extend((TEXT.len() as u64).to_le_bytes());
    out.extend(blake3::hash(TEXT).as_bytes());
    (out, [&1_u32.to_le_bytes()[..], &[1], &at].concat())
}

/// An entry's canonical part, and its pieces.
pub(super) type Entries = [(Vec<u8>, Vec<u8>)];

/// A root with a file.
pub(super) fn small() -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = file("x", chunk(0, 0, 0, TEXT.len()));
    vec![(directory(""), Vec::new()), text]
}

/// Backs up this listing, with the text in front of it, under what is said of the whole.
pub(super) async fn back_up(
    place: &Place,
    entries: &Entries,
    says: impl FnOnce(&mut TreeSummary),
) -> Result<Manifest> {
    let mut digest = blake3::Hasher::new();
    let mut plain = TEXT.to_vec();
    for (canonical, pieces) in entries {
        digest.update(canonical);
        plain.extend(canonical);
        plain.extend(pieces);
    }
    let mut chunks = b"F\x01\x00".to_vec();
    chunks.extend((plain.len() as u32).to_le_bytes());
    chunks.extend(&plain);
    let root = [
        &b"T\x01"[..],
        &1_u32.to_le_bytes(),
        &chunk(0, 0, TEXT.len(), plain.len() - TEXT.len()),
    ]
    .concat();
    let segment = |codec: &str, items, bytes| Segment {
        info: SegmentInfo {
            codec: codec.into(),
            items,
            first: HexBytes(vec![0; 32]),
            last: HexBytes(vec![0; 32]),
            heights: None,
        },
        bytes,
    };
    let segments = vec![segment("chunks.1", 2, chunks), segment("tree.1", 0, root)];
    let files = entries
        .iter()
        .filter(|(canonical, _)| canonical[0] == b'f')
        .count();
    let mut tree = TreeSummary {
        entries: entries.len() as u64,
        bytes: (files * TEXT.len()) as u64,
        blake3: Hex(*digest.finalize().as_bytes()),
    };
    says(&mut tree);
    let content = Content::Tree {
        entries: tree.entries,
        bytes: tree.bytes,
        blake3: tree.blake3,
        number: 0,
        uses: Vec::new(),
    };
    let mut source = ByHand {
        segments: segments.into_iter(),
        end: SourceEnd { content, items: 2 },
    };
    let how = BackUp {
        stream: "files",
        wrapping: &Named("reader"),
        signer: &place.signer,
        workers: 1,
    };
    place.repository.back_up(&mut source, &how).await
}

/// Backs it up, and restores it into `into`.
async fn tried(place: &Place, entries: &Entries, into: &Path) -> Result<u64> {
    let manifest = back_up(place, entries, |_| {}).await?;
    let restored = place.restore(&manifest, into).await;
    // Into nothing it is the same: what can't be restored is not replayed.
    let replayed = replay(&place.repository, &manifest, &Named("reader")).await;
    let wanted = manifest.content.tree().filter(|_| restored.is_ok());
    assert_eq!(
        replayed.as_ref().ok(),
        wanted.as_ref(),
        "{replayed:?}, {restored:?}"
    );
    restored
}

#[test]
fn no_listing_leads_out_of_the_tree() {
    runtime().block_on(async {
        let place = Place::new().await;
        let outside = place.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), b"secret").unwrap();
        let good = || chunk(0, 0, 0, TEXT.len());
        let text = |path: &str| file(path, good());
        let plain = |entry: Vec<u8>| (entry, Vec::new());
        let root = || plain(directory(""));
        let to_outside = || plain(link("out", outside.to_str().unwrap()));

        let fine = [
            root(),
            plain(directory("a")),
            text("a/b"),
            plain(hard("c", "a/b")),
            to_outside(),
        ];
        let into = place.path("good");
        assert_eq!(tried(&place, &fine, &into).await.unwrap(), 5);
        assert_eq!(fs::read(into.join("c")).unwrap(), TEXT);
        assert_eq!(fs::metadata(into.join("a/b")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(into.join("a")).unwrap().mode() & 0o7777, 0o755);

        let mut hostile = vec![
            vec![root(), to_outside(), text("out/x")],
            vec![root(), to_outside(), plain(hard("x", "out/secret"))],
            vec![root(), plain(hard("x", "../outside/secret"))],
            vec![root(), plain(directory("a")), text("b/x")],
            vec![root(), text("x"), text("x")],
            vec![root(), plain(directory("a")), plain(hard("b", "a"))],
            vec![root(), root()],
            vec![text("")],
            vec![plain(directory("a"))],
            vec![],
            // Of a segment that is not there, of a number that nobody has, or out of the segment.
            vec![root(), file("x", chunk(0, 9, 0, TEXT.len()))],
            vec![root(), file("x", chunk(3, 0, 0, TEXT.len()))],
            vec![root(), file("x", chunk(0, 1, 0, TEXT.len()))],
            vec![root(), file("x", chunk(0, 0, 1 << 30, TEXT.len()))],
            // Another text, or of another length.
            vec![root(), file("x", chunk(0, 0, 1, TEXT.len()))],
            vec![root(), file("x", chunk(0, 0, 0, TEXT.len() - 1))],
            vec![root(), file("x", chunk(0, 0, 0, TEXT.len() + 1))],
            vec![root(), plain(b"z".to_vec())],
            vec![root(), plain(vec![b'd', 0xff, 0xff, 0xff, 0xff])],
        ];
        for path in [
            "../x",
            "a/../../x",
            "/x",
            "a//x",
            "./x",
            "..",
            ".",
            "x/",
            "nul\0",
        ] {
            hostile.push(vec![root(), plain(directory("a")), text(path)]);
            hostile.push(vec![root(), plain(directory("a")), plain(directory(path))]);
        }
        let before = shown(&outside);
        for (number, entries) in hostile.iter().enumerate() {
            let into = place.path("bad");
            let refused = tried(&place, entries, &into).await;
            assert!(refused.is_err(), "{number}: {refused:?}");
            assert!(!into.exists(), "{number}");
            assert_eq!(shown(&outside), before, "{number}");
        }
        let mut there: Vec<_> = fs::read_dir(place.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        there.sort();
        assert_eq!(
            there,
            [".bad.restoring", "good", "outside"],
            "nothing else was made"
        );
    });
}
