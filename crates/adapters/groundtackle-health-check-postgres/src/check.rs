use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_health_check_client::Way;

use crate::ask::ask;
use crate::config::PostgresCheckConfig;
use crate::status::judge;

/// Looks at one PostgreSQL server, on a connection of its own each time.
#[derive(Debug)]
pub struct PostgresCheck {
    config: PostgresCheckConfig,
    way: Way,
}

impl From<PostgresCheckConfig> for PostgresCheck {
    fn from(config: PostgresCheckConfig) -> Self {
        let way = Way::new(config.tls_authorities.clone());
        Self { config, way }
    }
}

#[async_trait]
impl Check for PostgresCheck {
    async fn check(&self) -> Observation {
        match ask(&self.way, &self.config).await {
            Ok(status) => judge(&self.config, &status),
            Err(seen) => seen,
        }
    }
}
