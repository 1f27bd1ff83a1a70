#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fixture that can't be had ends the test"
)]

mod aerospike;
mod anvil;
mod apart;
mod certificates;
mod disk;
mod dnsmasq;
mod http;
mod moto;
mod postgres;
mod process;
mod proxy;
mod redis;
mod redis_cluster;

pub use aerospike::{Aerospike, AerospikeOptions};
pub use anvil::Anvil;
pub use certificates::Certificates;
pub use disk::SmallDisk;
pub use dnsmasq::Dnsmasq;
pub use http::{HttpServer, Reply, Request};
pub use moto::Moto;
pub use postgres::{Postgres, PostgresOptions};
pub use proxy::{Proxy, Way};
pub use redis::{Redis, RedisOptions};
pub use redis_cluster::RedisCluster;
