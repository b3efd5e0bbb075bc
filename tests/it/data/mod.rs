//! The data API: the stores over HTTP, with tokens.

mod blob;
mod hostile;
mod kv;
mod multipart;
mod openapi;
mod sql;
mod stream;
mod tokens;
mod vector;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Client, Server, Setup};

/// The stores that the tests use.
const STORES: &str =
    "[kv.notes]\n[kv.other]\n[sql.reports]\n[vector.captions]\ndimensions = 3\nindexed = [\"kind\"]\n[blob.other]\n[blob.images]\nobject_limit_bytes = 4000000
cache_control = \"public, max-age=31536000, immutable\"";

fn start() -> Server {
    Setup::demo().config(STORES).start()
}

/// A token with these scopes, as the command line has them.
fn token(server: &Server, scopes: &[&str]) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("test {}", MADE.fetch_add(1, Ordering::Relaxed));
    let mut arguments = vec!["token", "create", "--name", &name];
    arguments.extend_from_slice(scopes);
    server.cli_ok(&arguments)
}

/// A client with such a token.
fn client(server: &Server, scopes: &[&str]) -> Client {
    server.client(&token(server, scopes))
}
