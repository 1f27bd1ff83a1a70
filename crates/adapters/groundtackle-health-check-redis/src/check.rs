use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::Way;

use crate::ask::ask;
use crate::config::RedisCheckConfig;
use crate::info::judge;

/// Looks at one Redis server, on a connection of its own each time.
#[derive(Debug)]
pub struct RedisCheck {
    config: RedisCheckConfig,
    way: Way,
}

impl From<RedisCheckConfig> for RedisCheck {
    fn from(config: RedisCheckConfig) -> Self {
        let way = Way::new(config.tls_authorities.clone());
        Self { config, way }
    }
}

#[async_trait]
impl Check for RedisCheck {
    async fn check(&self) -> Observation {
        match ask(&self.way, &self.config).await {
            Ok(said) => judge(&self.config, &said),
            Err(seen) => seen,
        }
    }
}
