use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use groundtackle_core::ByteSize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, split};
use tokio::net::TcpStream;

use crate::address::Endpoint;
use crate::blocking::Blocking;
use crate::error::{Error, Result};

/// Makes connections. Names are those of the system's resolver, which is asked one at a time, since nobody can end that.
#[derive(Clone, Debug, Default)]
pub struct Dialer(Blocking);

impl Dialer {
    /// The addresses of a host, at least one.
    ///
    /// # Errors
    /// `Resolve`.
    pub async fn resolve(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
        let port = endpoint.port();
        if let Ok(address) = endpoint.host().parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let name = endpoint.host().to_owned();
        let asked = name.clone();
        let found = self
            .0
            .run(move || (asked.as_str(), port).to_socket_addrs())
            .await
            .unwrap_or_else(|| Err(io::Error::other("the resolver was given up")));
        match found.map(Vec::from_iter) {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                Err(Error::Resolve { name, source })
            }
            Err(source) => Err(Error::Resolve { name, source }),
        }
    }

    /// A connection to the first address that takes one, without delay of small packets.
    ///
    /// **Cancel safety**: dropped, the connection goes with it.
    ///
    /// # Errors
    /// `Resolve` and `Connect`.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream> {
        let addresses = self.resolve(endpoint).await?;
        let connect = async {
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect.await.map_err(|source| Error::Connect {
            address: endpoint.to_string(),
            source,
        })
    }
}

/// A stream that ends after so many bytes of answers, for protocols whose readers take what comes.
pub fn bounded<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    answers: ByteSize,
) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    let (reader, writer) = split(stream);
    join(reader.take(answers.bytes()), writer)
}
