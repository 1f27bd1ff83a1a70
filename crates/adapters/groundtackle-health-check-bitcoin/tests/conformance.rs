//! The kit's cases for checks.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod node;

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_health_check::Check;
use groundtackle_health_check_bitcoin::{BitcoinCheck, BitcoinProbe};
use groundtackle_health_check_testkit::{CheckHarness, State};
use groundtackle_testkit_servers::Reply;
use node::Node;

struct Nodes(Node, Node);

#[async_trait]
impl CheckHarness for Nodes {
    async fn check(&self) -> Arc<dyn Check> {
        let mut probe = BitcoinProbe::new(self.0.address().with_login("user", "pa55word"), "main");
        probe.references = vec![self.1.address()];
        Arc::new(BitcoinCheck::from(probe))
    }

    async fn make(&self, state: State) -> bool {
        match state {
            State::Working => self.0.unscript(),
            State::Broken => self.0.script(Reply::status(401, "pa55word of k3yk3yk3y")),
            State::Silent => self.0.script(Reply::Hang),
        }
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec!["pa55word".into(), "k3yk3yk3y".into()]
    }
}

groundtackle_health_check_testkit::check_conformance!(Nodes(Node::at(7), Node::at(7)));
