//! Ready sets of checks, as texts to write to a file, adjust, and read as a [`HealthConfig`](groundtackle_health_check::HealthConfig).
//! Beside [`EthereumProbe`](crate::EthereumProbe), named `ethereum`, and [`EthereumAccountProbe`](crate::EthereumAccountProbe), named
//! `ethereum_account`, they use probes of `groundtackle-health-check-probes`: `tcp`, `disk` and `clock`.

/// A node of Ethereum's main net.
pub const ETHEREUM: &str = include_str!("../sets/ethereum.toml");

/// A keeper of Maker: the node that it uses, its balance, that it sends transactions, and that liquidations are seen.
pub const MAKER_KEEPER: &str = include_str!("../sets/maker-keeper.toml");
