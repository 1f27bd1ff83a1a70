//! The info protocol: questions and answers as text behind a header of eight bytes.

use std::collections::BTreeMap;
use std::io;

use groundtackle_health_check_client::{Dialer, Endpoint, Result as ClientResult};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The protocol's version and the kind of message, in the first two bytes; the length is in the others.
const HEADER: u64 = (2 << 56) | (1 << 48);
const LENGTH: u64 = (1 << 48) - 1;

/// A node tells of itself in some 10 KB, and of each peer in a line.
const MAX_ANSWER: u64 = 1 << 20;

/// Answers by their questions, or keys with their values.
pub(crate) type Facts = BTreeMap<String, String>;

/// From `key=value;key=value`.
pub(crate) fn facts(text: &str) -> Facts {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.into(), v.into())).collect()
}

/// A connection to one node, as long as it is there.
#[derive(Debug)]
pub(crate) struct Line<S = TcpStream>(S);

impl Line {
    pub(crate) async fn to(dialer: &Dialer, node: &Endpoint) -> ClientResult<Self> {
        dialer.connect(node).await.map(Self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn over(stream: S) -> Self {
        Self(stream)
    }

    pub(crate) async fn ask(&mut self, questions: &[String]) -> io::Result<Facts> {
        let text = questions.join("\n") + "\n";
        let length = text.len() as u64;
        let mut message = (HEADER | length).to_be_bytes().to_vec();
        message.extend_from_slice(text.as_bytes());
        self.0.write_all(&message).await?;
        let header = self.0.read_u64().await?;
        let length = header & LENGTH;
        let unreadable = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if header & !LENGTH != HEADER {
            return Err(unreadable("what came is not Aerospike's info protocol"));
        }
        if length > MAX_ANSWER {
            return Err(unreadable("the answer has more than 1 MiB"));
        }
        let mut answer = Vec::new();
        let read = (&mut self.0).take(length).read_to_end(&mut answer).await?;
        if read as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8(answer).map_err(|_| unreadable("the answer is no text"))?;
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(lines.map(|(k, v)| (k.into(), v.into())).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn ask(answer: &[u8]) -> io::Result<Facts> {
        let (ours, mut theirs) = duplex(4096);
        theirs.write_all(answer).await.unwrap();
        let asked = Line::over(ours).ask(&["node".into(), "build".into()]).await;
        let mut heard = [0; 19];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"\x02\x01\0\0\0\0\0\x0bnode\nbuild\n");
        asked
    }

    #[tokio::test]
    async fn answers_are_read_and_bounded() {
        let good = ask(b"\x02\x01\0\0\0\0\0\x17node\tA0\nbuild\t8.1.2.0\n\n").await;
        let good = good.unwrap();
        assert_eq!(good.get("node").map(String::as_str), Some("A0"));
        assert_eq!(good.get("build").map(String::as_str), Some("8.1.2.0"));
        for (bad, kind) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                io::ErrorKind::InvalidData,
            ),
            (b"\x02\x03\0\0\0\0\0\x01x", io::ErrorKind::InvalidData),
            (
                b"\x02\x01\xff\xff\xff\xff\xff\xffx",
                io::ErrorKind::InvalidData,
            ),
            (
                b"\x02\x01\0\0\0\0\0\x02\xff\xff",
                io::ErrorKind::InvalidData,
            ),
        ] {
            assert_eq!(ask(bad).await.unwrap_err().kind(), kind, "{bad:?}");
        }
    }
}
