//! On the in-memory store, which gives the same verdicts as every adapter; and on disk, where that is the point.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

use std::path::Path;
use std::process::Command;

use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{
    BlockHash, ChainBlock, Error, OutPoint, Retryability, Script, Tip, Transaction, TxOut, Txid,
    Verdict,
};
use store_in_your_service::{Answer, Broken, Service, open};

async fn blocks() -> Vec<ChainBlock> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let config = BlockFilesConfig::new(Network::Main);
    let mut files = BlockFiles::open(vec![folder], config).await.unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = files.next_block().await.unwrap() {
        blocks.push(block);
    }
    blocks
}

/// Connected to height 169, and the payment of block 170.
async fn before_the_first_payment(url: &str) -> (Service, Vec<ChainBlock>, Transaction) {
    let service = Service::new(open(url).await.unwrap());
    let blocks = blocks().await;
    for block in &blocks[..170] {
        assert_eq!(service.connect(block).await.unwrap(), Answer::Yes);
    }
    let payment = blocks[170].transactions[1].clone();
    (service, blocks, payment)
}

fn tip_of(block: &ChainBlock) -> Tip {
    Tip {
        height: block.height,
        hash: block.hash,
        median_time_past: block.median_time_past,
    }
}

fn spending(number: u8, inputs: Vec<OutPoint>) -> Transaction {
    Transaction {
        txid: Txid::from_bytes([number; 32]),
        inputs,
        outputs: vec![TxOut {
            value_sat: 1,
            script: Script::from_bytes(vec![0x51]),
        }],
        lock_time: 0,
        size_bytes: 100,
        coinbase: false,
    }
}

#[tokio::test]
async fn each_answer_says_what_to_do() {
    let (service, blocks, payment) = before_the_first_payment("memory:").await;
    let coin = payment.inputs[0];
    assert_eq!(service.may_be_spent(coin).await.unwrap(), Answer::Yes);
    assert_eq!(service.accept(payment.clone()).await.unwrap(), Answer::Yes);
    assert_eq!(
        service.accept(payment.clone()).await.unwrap(),
        Answer::Known
    );
    let taken = |answer| matches!(answer, Answer::Refused(Verdict::AlreadySpent { .. }));
    assert!(taken(service.may_be_spent(coin).await.unwrap()));
    assert!(taken(
        service.accept(spending(9, vec![coin])).await.unwrap()
    ));

    // Its outputs can be spent before it is mined, and the child is known by its parent.
    let child = spending(8, vec![OutPoint::new(payment.txid, 0)]);
    assert_eq!(service.accept(child).await.unwrap(), Answer::Yes);
    let orphan = service
        .accept(spending(
            7,
            vec![OutPoint::new(Txid::from_bytes([6; 32]), 0)],
        ))
        .await;
    assert!(matches!(
        orphan.unwrap(),
        Answer::NotYet(Verdict::MissingTransaction { .. })
    ));
    // Spendable at 269: a block of that height may, one of 170 may not.
    let young = OutPoint::new(blocks[169].transactions[0].txid, 0);
    let immature = Answer::NotYet(Verdict::Immature {
        outpoint: young,
        spendable_at: Some(269),
    });
    assert_eq!(service.may_be_spent(young).await.unwrap(), immature);
    assert_eq!(
        service.accept(spending(5, vec![young])).await.unwrap(),
        immature
    );
    let none = service
        .accept(spending(4, vec![OutPoint::new(payment.txid, 7)]))
        .await
        .unwrap();
    assert!(
        matches!(none, Answer::Invalid(Verdict::MissingOutput { .. })),
        "{none:?}"
    );
    let coinbase = service
        .accept(blocks[170].transactions[0].clone())
        .await
        .unwrap();
    assert!(
        matches!(
            coinbase,
            Answer::Invalid(Verdict::InvalidTransaction { .. })
        ),
        "{coinbase:?}"
    );
}

#[tokio::test]
async fn blocks_come_first_and_what_rested_on_a_loser_goes_with_it() {
    let (service, blocks, payment) = before_the_first_payment("memory:").await;
    let loser = spending(9, vec![payment.inputs[0]]);
    let child = spending(8, vec![OutPoint::new(loser.txid, 0)]);
    let grandchild = OutPoint::new(child.txid, 0);
    assert_eq!(service.accept(loser).await.unwrap(), Answer::Yes);
    assert_eq!(service.accept(child).await.unwrap(), Answer::Yes);
    assert_eq!(service.connect(&blocks[170]).await.unwrap(), Answer::Yes);
    assert_eq!(service.connect(&blocks[170]).await.unwrap(), Answer::Known);
    let lost = service.may_be_spent(grandchild).await.unwrap();
    assert!(
        matches!(lost, Answer::Refused(Verdict::ConflictingParent { .. })),
        "{lost:?}"
    );
    assert_eq!(
        service
            .may_be_spent(OutPoint::new(payment.txid, 0))
            .await
            .unwrap(),
        Answer::Yes
    );
    // A block that spends what is spent in the chain is refused, and evicts nothing.
    let mut bad = blocks[171].clone();
    bad.transactions.push(spending(3, vec![payment.inputs[0]]));
    let refused = service.connect(&bad).await.unwrap();
    assert!(
        matches!(refused, Answer::Refused(Verdict::InBlock { .. })),
        "{refused:?}"
    );
    assert_eq!(service.connect(&blocks[171]).await.unwrap(), Answer::Yes);
}

#[tokio::test]
async fn a_reorganisation_and_its_repetition_lead_to_the_new_branch() {
    let (service, blocks, payment) = before_the_first_payment("memory:").await;
    for block in &blocks[170..175] {
        service.connect(block).await.unwrap();
    }
    let mut branch = Vec::new();
    let mut previous = blocks[169].hash;
    for height in 170..176 {
        let hash = BlockHash::from_bytes([height as u8; 32]);
        let mut coinbase = spending(height as u8, Vec::new());
        coinbase.coinbase = true;
        branch.push(ChainBlock {
            height,
            hash,
            previous,
            transactions: vec![coinbase],
            ..blocks[170].clone()
        });
        previous = hash;
    }
    let fork = tip_of(&blocks[169]);
    for blocks in [&branch[..3], &branch[..], &branch[..]] {
        assert_eq!(service.reorganise(fork, blocks).await.unwrap(), Answer::Yes);
    }
    assert_eq!(service.tip().await.unwrap(), Some(tip_of(&branch[5])));
    // The payment is in neither chain nor mempool, and its coin is free.
    assert_eq!(
        service.may_be_spent(payment.inputs[0]).await.unwrap(),
        Answer::Yes
    );
    assert_eq!(
        service.reorganise(fork, &blocks[170..177]).await.unwrap(),
        Answer::Yes
    );
    assert_eq!(service.tip().await.unwrap(), Some(tip_of(&blocks[176])));
}

#[tokio::test]
async fn what_was_closed_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("store").display());
    let (service, blocks, payment) = before_the_first_payment(&url).await;
    service.accept(payment.clone()).await.unwrap();
    // A store is one process's, and in that one owner's.
    let second = open(&url).await.map_err(Broken::from);
    assert!(
        matches!(second, Err(Broken::ForAPerson(Error::InUse { .. }))),
        "{second:?}"
    );
    service.close().await.unwrap();
    let service = Service::new(open(&url).await.unwrap());
    assert_eq!(service.tip().await.unwrap(), Some(tip_of(&blocks[169])));
    assert_eq!(service.accept(payment).await.unwrap(), Answer::Known);
}

#[test]
fn an_error_says_whether_to_ask_again() {
    let with = |sort| Broken::from(Error::backend("memory", "read", sort, "gone"));
    assert!(matches!(with(Retryability::Transient), Broken::Later(_)));
    assert!(matches!(
        with(Retryability::Indeterminate),
        Broken::Unknown(_)
    ));
    assert!(matches!(
        with(Retryability::Permanent),
        Broken::ForAPerson(_)
    ));
}

#[test]
fn the_program_finds_all_as_known() {
    let ran = Command::new(env!("CARGO_BIN_EXE_store-in-your-service"))
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success() && said.ends_with("all as known\n"),
        "{said}"
    );
}
