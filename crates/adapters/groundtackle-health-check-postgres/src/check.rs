use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};

use crate::ask::Way;
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
        let way = Way::new(&config);
        Self { config, way }
    }
}

#[async_trait]
impl Check for PostgresCheck {
    async fn check(&self) -> Observation {
        match self.way.ask(&self.config).await {
            Ok(status) => judge(&self.config, &status),
            Err(seen) => seen,
        }
    }
}
