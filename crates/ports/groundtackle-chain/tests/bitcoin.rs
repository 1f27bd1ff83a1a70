//! The `bitcoin` crate sees the same in the same bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use groundtackle_chain::{
    Block, BlockHash, BlockHeader, DecodeError, Network, OutPoint, Script, Transaction, TxOut,
    Txid, decode_block,
};

#[test]
fn blocks_convert_to_what_their_bytes_decode_to() {
    let blocks = common::full_blocks().into_iter().map(|(_, bytes)| bytes);
    for bytes in blocks.chain(common::first_blocks()) {
        let ours = decode_block(&bytes, &Default::default()).unwrap();
        let theirs: bitcoin::Block = bitcoin::consensus::deserialize(&bytes).unwrap();
        assert_eq!(Block::try_from(&theirs).unwrap(), ours);
        assert_eq!(BlockHash::from(theirs.block_hash()), ours.hash);
        assert_eq!(bitcoin::BlockHash::from(ours.hash), theirs.block_hash());
        assert_eq!(BlockHeader::from(theirs.header), ours.header);
        assert_eq!(bitcoin::block::Header::from(ours.header), theirs.header);
        assert_eq!(theirs.txdata.len(), ours.transactions.len());
        for (theirs, ours) in theirs.txdata.into_iter().zip(ours.transactions) {
            assert_eq!(Transaction::try_from(&theirs).as_ref(), Ok(&ours));
            assert_eq!(Txid::from(theirs.compute_txid()), ours.txid);
            assert_eq!(bitcoin::Txid::from(ours.txid), theirs.compute_txid());
            assert_eq!(theirs.is_coinbase(), ours.coinbase);
            assert_eq!(theirs.total_size() as u64, ours.size_bytes);
            assert_eq!(theirs.lock_time.to_consensus_u32(), ours.lock_time);
            for (theirs, ours) in theirs.input.iter().zip(ours.inputs) {
                assert_eq!(OutPoint::from(theirs.previous_output), ours);
                assert_eq!(bitcoin::OutPoint::from(ours), theirs.previous_output);
            }
            for (theirs, ours) in theirs.output.into_iter().zip(ours.outputs) {
                assert_eq!(TxOut::from(theirs.clone()), ours);
                assert_eq!(
                    bitcoin::ScriptBuf::from(ours.script.clone()),
                    theirs.script_pubkey
                );
                assert_eq!(Script::from(theirs.script_pubkey.clone()), ours.script);
                assert_eq!(bitcoin::TxOut::from(ours), theirs);
            }
        }
    }
}

#[test]
fn what_cannot_be_in_a_block_does_not_convert() {
    let theirs: bitcoin::Block =
        bitcoin::consensus::deserialize(&common::first_blocks()[170]).unwrap();
    let mut transaction = theirs.txdata[1].clone();
    transaction.output[1].value = bitcoin::Amount::MAX;
    assert!(matches!(
        Transaction::try_from(&transaction),
        Err(DecodeError::AmountTooLarge { vout: 1, .. })
    ));
    transaction.input.clear();
    assert!(matches!(
        Transaction::try_from(&transaction),
        Err(DecodeError::NoInputs { .. })
    ));
    let mut block = theirs;
    block.txdata.pop();
    assert_eq!(
        Block::try_from(&block),
        Err(DecodeError::MerkleRootMismatch)
    );
}

#[test]
fn networks_have_the_genesis_block_and_the_limit_of_bitcoin() {
    for network in Network::ALL {
        let theirs = bitcoin::Network::from(network);
        let genesis = bitcoin::constants::genesis_block(theirs);
        assert_eq!(
            BlockHash::from(genesis.block_hash()),
            network.genesis_hash()
        );
        assert_eq!(theirs.magic().to_bytes(), network.magic());
        let limit = theirs.params().max_attainable_target.to_compact_lossy();
        assert_eq!(limit.to_consensus(), network.pow_limit_bits());
        Block::try_from(&genesis).unwrap();
    }
}

#[test]
fn proof_of_work_is_judged_alike() {
    for (network, bytes) in common::full_blocks() {
        let header = common::header(&bytes);
        let theirs = bitcoin::block::Header::from(header);
        theirs.validate_pow(theirs.target()).unwrap();
        network
            .check_proof_of_work(&header.hash(), header.bits)
            .unwrap();
    }
}
