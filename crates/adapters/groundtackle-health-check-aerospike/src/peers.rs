//! The list of a node's peers: `generation,port,[[id,name,[address,…]],…]`.

use groundtackle_health_check_client::Endpoint;

/// Where a port is not told.
const PORT: u16 = 3000;

/// Another node, as one tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: String,
    /// Those that can be read.
    pub(crate) addresses: Vec<Endpoint>,
}

/// `None`: it is no list of peers.
pub(crate) fn peers(text: &str) -> Option<Vec<Peer>> {
    let (_generation, rest) = text.trim().split_once(',')?;
    let (port, rest) = rest.split_once(',')?;
    let port = port.parse().unwrap_or(PORT);
    let mut rest = rest.strip_prefix('[')?.strip_suffix(']')?;
    let mut peers = Vec::new();
    while !rest.is_empty() {
        let (id, after) = rest.strip_prefix('[')?.split_once(',')?;
        let (_name, after) = after.split_once(",[")?;
        // An address may have brackets of its own; what ends a peer has two on end.
        let (addresses, after) = after.split_once("]]")?;
        let (addresses, after) = match after.strip_prefix(']') {
            // The last one was an IPv6 address without a port.
            Some(after) => (format!("{addresses}]"), after),
            None => (addresses.to_owned(), after),
        };
        peers.push(Peer {
            id: id.to_owned(),
            addresses: addresses
                .split(',')
                .filter_map(|address| endpoint(address, port))
                .collect(),
        });
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(peers)
}

fn endpoint(address: &str, port: u16) -> Option<Endpoint> {
    let of_name = || format!("{address}:{port}").parse().ok();
    address.parse().ok().or_else(of_name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(id: &str, addresses: &[&str]) -> Peer {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        Peer {
            id: id.into(),
            addresses: addresses.collect(),
        }
    }

    #[test]
    fn lists_of_peers_are_read() {
        for (text, expected) in [
            ("0,3000,[]", vec![]),
            ("3,,[]\n", vec![]),
            (
                "1,3000,[[A1,,[10.0.0.1]]]",
                vec![peer("A1", &["10.0.0.1:3000"])],
            ),
            (
                "6,3100,[[A1,,[127.0.0.1:23000]],[A2,tls.name,[db-2,10.0.0.2:3001]]]",
                vec![
                    peer("A1", &["127.0.0.1:23000"]),
                    peer("A2", &["db-2:3100", "10.0.0.2:3001"]),
                ],
            ),
            (
                "6,3000,[[A1,,[[::1]:3001,10.0.0.1]],[A2,,[10.0.0.2,[fe80::2]]],[A3,,[[::3]]]]",
                vec![
                    peer("A1", &["[::1]:3001", "10.0.0.1:3000"]),
                    peer("A2", &["10.0.0.2:3000", "[fe80::2]:3000"]),
                    peer("A3", &["[::3]:3000"]),
                ],
            ),
            // One that can't be reached is one all the same.
            ("1,3000,[[A1,,[]]]", vec![peer("A1", &[])]),
            ("1,3000,[[A1,,[a b]]]", vec![peer("A1", &[])]),
        ] {
            assert_eq!(peers(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "ERROR:4:unrecognized command",
            "1,3000",
            "1,3000,",
            "1,3000,[",
            "1,3000,[[A1]]",
            "1,3000,[[A1,,[10.0.0.1]]x]",
            "1,3000,[[A1,,10.0.0.1]]",
        ] {
            assert_eq!(peers(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9,\\[\\]a:.\n]{0,60}") {
            drop(peers(&text));
        }

        #[test]
        fn what_is_written_is_read(nodes in prop::collection::vec(("[A-F0-9]{1,16}", prop::collection::vec(any::<std::net::SocketAddr>(), 0..4)), 0..5)) {
            let list: Vec<_> = nodes.iter().map(|(id, addresses)| {
                let addresses: Vec<_> = addresses.iter().map(|of| match of {
                    std::net::SocketAddr::V4(of) => format!("{}:{}", of.ip(), of.port().max(1)),
                    std::net::SocketAddr::V6(of) => format!("[{}]:{}", of.ip(), of.port().max(1)),
                }).collect();
                format!("[{id},,[{}]]", addresses.join(","))
            }).collect();
            let read = peers(&format!("1,3000,[{}]", list.join(","))).unwrap();
            let counts = |of: Vec<(String, usize)>| of;
            prop_assert_eq!(
                counts(read.into_iter().map(|peer| (peer.id, peer.addresses.len())).collect()),
                counts(nodes.into_iter().map(|(id, of)| (id, of.len())).collect())
            );
        }
    }
}
