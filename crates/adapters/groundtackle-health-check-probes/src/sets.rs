//! Ready sets of checks, as texts to write to a file, adjust, and read as a [`HealthConfig`](groundtackle_health_check::HealthConfig) of
//! [`Probe`](crate::Probe).

/// The eleven services of a Teranode node, with their start order.
pub const TERANODE: &str = include_str!("../sets/teranode.toml");
