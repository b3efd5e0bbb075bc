//! The upstream that serves when no account is configured: small, deterministic, on this machine only.

use std::{io, net::SocketAddr};

use super::{
    accounts::{AccountSpec, Secret},
    dialect::Dialect,
};

/// Starts the demo upstream on a free port of the loopback interface; it runs as long as the runtime.
pub async fn start() -> io::Result<SocketAddr> {
    todo!()
}

/// The account under which it serves.
pub fn account(address: SocketAddr) -> AccountSpec {
    AccountSpec {
        name: "demo".to_owned(),
        dialect: Dialect::OpenAi,
        base_url: format!("http://{address}"),
        api_key: Secret::default(),
        models: Vec::new(),
        weight: 1,
        priority: 0,
        rpm: None,
        tpm: None,
        rpd: None,
    }
}
