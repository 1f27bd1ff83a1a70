use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::client::{RpcClient, Session};
use crate::error::Result;
use crate::node::Node;

/// Other nodes, to compare one with. What they do or don't do is never a fault of the node that is compared.
#[derive(Clone, Debug)]
pub struct References {
    clients: Vec<RpcClient>,
    timeout: Duration,
}

impl References {
    /// How many there may be.
    pub const MAX: usize = 16;

    /// These nodes; each is asked for at most `timeout` at once. Of more than [`MAX`](Self::MAX) the first are taken.
    #[must_use]
    pub fn new(nodes: Vec<Node>, timeout: Duration) -> Self {
        let clients = nodes
            .into_iter()
            .take(Self::MAX)
            .map(RpcClient::from)
            .collect();
        Self { clients, timeout }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Asks all of them at once; `None` of those that don't answer, or not in time. In their order.
    ///
    /// **Cancel safety**: dropped, the connections go with it.
    pub async fn ask<T: Send, F>(
        &self,
        ask: impl Fn(usize, Session) -> F + Send + Sync,
    ) -> Vec<Option<T>>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let ask = &ask;
        let all: Vec<_> = self
            .clients
            .iter()
            .cloned()
            .enumerate()
            .map(|(i, client)| async move {
                let asked = async { ask(i, client.session().await?).await };
                timeout(self.timeout, asked).await.ok()?.ok()
            })
            .collect();
        join_all(all).await
    }
}

/// The value that at least half of them reach, so that no single one decides; `None` of none.
#[must_use]
pub fn lower_median<T: Ord>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    let middle = values.len().saturating_sub(1) / 2;
    values.into_iter().nth(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_single_one_decides() {
        assert_eq!(lower_median::<u64>([]), None);
        assert_eq!(lower_median([7]), Some(7));
        assert_eq!(lower_median([7, 1_000_000]), Some(7));
        assert_eq!(lower_median([1_000_000, 7, 8]), Some(8));
        assert_eq!(lower_median([0, 7, 8]), Some(7));
    }
}
