//! The HTTP door.
use crate::{
    clock::Clock,
    config::Config,
    links::Links,
    metrics::Metrics,
    store::{Db, objects::Objects},
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
/// x
pub struct Parts {
    /// c
    pub config: Arc<Config>,
    /// c
    pub clock: Clock,
    /// c
    pub db: Db,
    /// c
    pub objects: Objects,
    /// c
    pub links: Arc<Links>,
    /// c
    pub metrics: Arc<Metrics>,
}
/// x
pub struct Http {
    a: Vec<SocketAddr>,
    _p: Parts,
}
impl Http {
    /// x
    pub async fn bind(p: Parts) -> Result<Self, std::io::Error> {
        Ok(Self { a: vec![], _p: p })
    }
    /// x
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.a
    }
    /// x
    pub async fn run(self, stop: CancellationToken, _g: Duration) {
        stop.cancelled().await
    }
}
