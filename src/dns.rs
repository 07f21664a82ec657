//! The one resolver.

use std::net::IpAddr;

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
#[error("name lookup failed: {0}")]
pub struct DnsError(#[from] std::io::Error);

/// Resolves names through the system.
#[derive(Debug, Default)]
pub struct Resolver;

impl Resolver {
    /// The IPv6 and IPv4 addresses of `host`, in the order in which to try them.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}
