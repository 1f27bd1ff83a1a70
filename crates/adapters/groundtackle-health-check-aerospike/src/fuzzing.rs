//! For the fuzz target and the corpus test: what must hold of whatever a node sends.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use groundtackle_health_check::Outcome;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::AerospikeCheckConfig;
use crate::info::{Line, facts};
use crate::judge::{Found, Look, judge};
use crate::peers::peers;

/// A node that says this, whatever it is asked.
struct Says<'a>(&'a [u8]);

impl AsyncRead for Says<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, rest) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Says<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a node sends, its head put right unless the first byte is 0: it is no answer, or facts, of which none is longer than what
/// came; what is not well of them is told; peers come from what was said.
pub fn aerospike_info(bytes: &[u8]) {
    let Some((how, text)) = bytes.split_first() else {
        return;
    };
    let mut sent = Vec::new();
    if *how != 0 {
        sent.extend(((2_u64 << 56) | (1 << 48) | text.len() as u64).to_be_bytes());
    }
    sent.extend(text);
    // Nothing of it ever waits.
    let mut line = Line::over(Says(&sent));
    let questions = ["node".to_owned()];
    let asked = std::pin::pin!(line.ask(&questions));
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(answer) = asked.poll(&mut context) else {
        unreachable!("nothing of it waits");
    };
    let Ok(answer) = answer else {
        return;
    };
    let config = AerospikeCheckConfig::new([]);
    for (question, said) in &answer {
        assert!(question.len() + said.len() < text.len());
        assert!(
            facts(said)
                .iter()
                .all(|(key, value)| key.len() + value.len() < said.len())
        );
        for peer in peers(said).into_iter().flatten() {
            assert!(said.contains(&peer.id));
        }
        let look = |cluster: &str| Look {
            cluster: cluster.into(),
            namespaces: [(question.clone(), said.clone())].into(),
        };
        for other in ["A", said] {
            let looks = [("A0".to_owned(), look("A")), ("A1".to_owned(), look(other))];
            let found = Found {
                looks: looks.into(),
                ..Found::default()
            };
            let seen = judge(&config, &found);
            assert_eq!(seen.outcome == Outcome::Pass, seen.detail.is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/aerospike_info");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            aerospike_info(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
