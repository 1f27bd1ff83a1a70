//! A node's day with its store, on the first blocks of Bitcoin: each answer is printed, and compared with what is known.

use std::error::Error;
use std::fmt::Debug;
use std::process::ExitCode;

use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{ChainBlock, OutPoint, ScanStore, Tip, Txid, Verdict};
use store_in_your_service::{Answer, Service, open};
use tracing_subscriber::EnvFilter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Main net blocks 0 to 199.
const BLOCKS: &[u8] = include_bytes!("../data/blk00000.dat");

/// `gettxoutsetinfo muhash` of Bitcoin Core at height 170.
const KNOWN: &str = "b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30";

async fn blocks(folder: &std::path::Path) -> Result<Vec<ChainBlock>> {
    std::fs::write(folder.join("blk00000.dat"), BLOCKS)?;
    let config = BlockFilesConfig::new(Network::Main);
    let mut files = BlockFiles::open(vec![folder.to_owned()], config).await?;
    let mut blocks = Vec::new();
    while let Some(block) = files.next_block().await? {
        blocks.push(block);
    }
    Ok(blocks)
}

/// Prints what was found, and refuses anything but what is known.
fn expect<T: Debug>(what: &str, found: &T, known: impl FnOnce(&T) -> bool) -> Result<()> {
    println!("{what}: {found:?}");
    match known(found) {
        true => Ok(()),
        false => Err(format!("{what}: that is not the known answer").into()),
    }
}

async fn day() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = format!("embedded:{}", folder.path().join("store").display());
    let store = open(&std::env::args().nth(1).unwrap_or(own)).await?;
    let service = Service::new(store.clone());
    let blocks = blocks(folder.path()).await?;
    let tip = service.tip().await?.map(|tip| tip.height);
    expect("the tip of a new store", &tip, Option::is_none)?;

    let (before, rest) = blocks.split_at_checked(170).ok_or("there are 200 blocks")?;
    for block in before {
        service.connect(block).await?;
    }
    let (Some(parent), Some(block)) = (before.last(), rest.first()) else {
        return Err("there are 200 blocks".into());
    };
    // The first payment from one person to another, which block 170 will mine.
    let payment = block
        .transactions
        .last()
        .cloned()
        .ok_or("block 170 has two transactions")?;
    let coin: OutPoint = payment.inputs.first().copied().ok_or("it has an input")?;
    let young = parent
        .transactions
        .first()
        .map(|coinbase| OutPoint::new(coinbase.txid, 0));
    let answer = service
        .may_be_spent(young.ok_or("it has a coinbase")?)
        .await?;
    expect(
        "may the coinbase of block 169 be spent",
        &answer,
        |answer| {
            matches!(
                answer,
                Answer::NotYet(Verdict::Immature {
                    spendable_at: Some(269),
                    ..
                })
            )
        },
    )?;
    let answer = service.may_be_spent(coin).await?;
    expect("may the coinbase of block 9 be spent", &answer, |answer| {
        *answer == Answer::Yes
    })?;
    let answer = service.accept(payment.clone()).await?;
    expect("the payment", &answer, |answer| *answer == Answer::Yes)?;
    let mut rival = payment.clone();
    rival.txid = Txid::from_bytes([9; 32]);
    let answer = service.accept(rival).await?;
    expect(
        "another one of the same coin",
        &answer,
        |answer| matches!(answer, Answer::Refused(Verdict::AlreadySpent { by, .. }) if by.txid == payment.txid),
    )?;

    service.connect(block).await?;
    let digest = || async {
        let mut muhash = store.digest().await?.muhash;
        muhash.reverse();
        Ok::<_, Box<dyn Error>>(groundtackle_chain::hash::to_hex(&muhash))
    };
    expect("the digest at height 170", &digest().await?, |digest| {
        digest == KNOWN
    })?;
    let fork = Tip {
        height: parent.height,
        hash: parent.hash,
        median_time_past: parent.median_time_past,
    };
    service.reorganise(fork, &[]).await?;
    let answer = service.accept(payment).await?;
    expect(
        "the payment, once its block has left the chain",
        &answer,
        |answer| *answer == Answer::Known,
    )?;
    service
        .reorganise(fork, std::slice::from_ref(block))
        .await?;
    expect(
        "the digest after the way back",
        &digest().await?,
        |digest| digest == KNOWN,
    )?;
    service.close().await?;
    println!("all as known");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG=debug shows each call, and how long it took.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match day().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-in-your-service: {error}");
            ExitCode::FAILURE
        }
    }
}
