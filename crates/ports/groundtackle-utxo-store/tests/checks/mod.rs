//! What must hold of any bytes. The fuzz target and the corpus test call the same check.

#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(unreachable_pub)]

use std::io::Cursor;

use groundtackle_utxo_store::Coin;
use groundtackle_utxo_store::snapshot::{
    SnapshotFormatError, SnapshotHeader, SnapshotReader, SnapshotWriter,
};

/// A snapshot file of either version: it is read to its end or to an error. What is read comes back from
/// what is written, in version 2 and in one form; and cut short by a byte, it is refused.
pub fn snapshot(bytes: &[u8]) {
    let Ok((header, transactions)) = read(bytes) else {
        return;
    };
    let coins: usize = transactions.iter().map(Vec::len).sum();
    assert_eq!(coins as u64, header.coins);
    let network = header.network.unwrap_or_default();
    let mut writer = SnapshotWriter::new(Cursor::new(Vec::new()), network, &header.block).unwrap();
    for coins in &transactions {
        writer.add(coins).unwrap();
    }
    let (written, file) = writer.finish().unwrap();
    assert_eq!(written, header.coins);
    let file = file.into_inner();
    let (again, same) = read(&file).unwrap();
    assert_eq!(
        (again.version, again.network, again.block, again.coins),
        (2, Some(network), header.block, header.coins)
    );
    assert_eq!(same, transactions);
    let (_, cut) = file.split_last().unwrap();
    let error = read(cut).unwrap_err();
    assert!(
        matches!(error, SnapshotFormatError::Truncated { .. }),
        "{error}"
    );
}

fn read(bytes: &[u8]) -> Result<(SnapshotHeader, Vec<Vec<Coin>>), SnapshotFormatError> {
    let mut reader = SnapshotReader::new(bytes)?;
    let mut transactions = Vec::new();
    while let Some(coins) = reader.next_transaction()? {
        assert!(!coins.is_empty());
        assert!(reader.position() <= bytes.len() as u64);
        transactions.push(coins);
    }
    assert_eq!(reader.position(), bytes.len() as u64);
    Ok((*reader.header(), transactions))
}
