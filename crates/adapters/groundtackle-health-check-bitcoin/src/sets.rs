//! Ready sets of checks, as texts to write to a file, adjust, and read as a [`HealthConfig`](groundtackle_health_check::HealthConfig).
//! Beside [`BitcoinProbe`](crate::BitcoinProbe), named `bitcoin`, they use probes of `groundtackle-health-check-probes`: `tcp`, `disk` and
//! `clock`.

/// A node of Bitcoin (BTC): Bitcoin Core and what speaks its RPC. With the block of another chain in it, of that chain.
pub const BITCOIN: &str = include_str!("../sets/bitcoin.toml");

/// A node of Bitcoin SV.
pub const BITCOIN_SV: &str = include_str!("../sets/bitcoin-sv.toml");
