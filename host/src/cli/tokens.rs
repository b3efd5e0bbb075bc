//! `tollgate token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, segment, text};
use super::duration::duration;
use super::failure::Failure;
use super::keys::print_list;
use super::output;

const COLUMNS: [&str; 6] = ["name", "kv", "blob", "sql", "vector", "expires_ms"];

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a data token and print it, alone and only this once.
    #[command(after_help = "\
A scope is STORE:read or STORE:read-write; for SQL the tables may follow, separated by commas. Each may be given
several times.

Examples:
  tollgate token create --name site --blob images:read
  tollgate token create --name app --kv notes:read-write --prefix user/7/ --expires 30d
  tollgate token create --name search --vector captions:read
  TOKEN=$(tollgate token create --name report --sql gateway:read:request_logs,api_key_metrics)")]
    Create(TokenCreate),
    /// List the data tokens and what they open, never the tokens themselves.
    #[command(after_help = "Example:\n  tollgate token list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a data token; requests with it are refused from now on.
    #[command(after_help = "Example:\n  tollgate token revoke site")]
    Revoke {
        /// The token's name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct TokenCreate {
    /// A name for the token, unique among those there are.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// A kv store that it opens.
    #[arg(long, value_name = "STORE:ACCESS", value_parser = scope)]
    kv: Vec<Scope>,
    /// A blob container that it opens.
    #[arg(long, value_name = "STORE:ACCESS", value_parser = scope)]
    blob: Vec<Scope>,
    /// A database that it opens, or some of its tables.
    #[arg(long, value_name = "STORE:ACCESS[:TABLE,…]", value_parser = scope)]
    sql: Vec<Scope>,
    /// A vector index that it opens.
    #[arg(long, value_name = "INDEX:ACCESS", value_parser = scope)]
    vector: Vec<Scope>,
    /// Only keys that start with this, in all its kv stores and blob containers.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// How long it is valid, such as 30d, 12h, 45m or 90s; left out: until it is revoked.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Duration>,
}

/// A scope as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    store: String,
    access: String,
    tables: Vec<String>,
}

fn scope(text: &str) -> Result<Scope, String> {
    let mut parts = text.splitn(3, ':');
    let (store, access) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if store.is_empty() || !matches!(access, "read" | "read-write") {
        return Err("write STORE:read or STORE:read-write".to_owned());
    }
    let tables: Vec<_> =
        parts.next().map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
    if tables.iter().any(String::is_empty) {
        return Err("a table's name is empty".to_owned());
    }
    Ok(Scope { store: store.to_owned(), access: access.to_owned(), tables })
}

pub(super) async fn create(client: &Client, token: TokenCreate) -> Result<(), Failure> {
    if token.kv.iter().chain(&token.blob).chain(&token.vector).any(|scope| !scope.tables.is_empty()) {
        return Err(Failure::Usage(
            "only --sql names tables; --prefix narrows kv stores and containers".into(),
        ));
    }
    let prefix = token.prefix.unwrap_or_default();
    let keyed = |scope: &Scope| json!({ "access": scope.access, "prefix": prefix });
    let tables = |scope: &Scope| json!({ "access": scope.access, "tables": scope.tables });
    let whole = |scope: &Scope| json!({ "access": scope.access });
    let expires_ms = token.expires.map(expires_ms);
    let body = json!({
        "name": token.name,
        "kv": by_store("--kv", &token.kv, keyed)?,
        "blob": by_store("--blob", &token.blob, keyed)?,
        "sql": by_store("--sql", &token.sql, tables)?,
        "vector": by_store("--vector", &token.vector, whole)?,
        "expires_ms": expires_ms,
    });
    let answer = client.json(Method::POST, "/tokens", &body).await?;
    output::print(format!("{}\n", text(&answer, "token")?).as_bytes())?;
    Ok(())
}

/// A store named twice would mean two different things.
fn by_store(
    option: &str,
    scopes: &[Scope],
    value: impl Fn(&Scope) -> Value,
) -> Result<Map<String, Value>, Failure> {
    let mut map = Map::new();
    for scope in scopes {
        if map.insert(scope.store.clone(), value(scope)).is_some() {
            return Err(Failure::Usage(format!("{option} names `{}` twice", scope.store)));
        }
    }
    Ok(map)
}

fn expires_ms(time: Duration) -> u64 {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(time);
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    print_list(&client.get("/tokens").await?, "tokens", &COLUMNS, json)
}

pub(super) async fn revoke(client: &Client, name: &str) -> Result<(), Failure> {
    client.delete(&format!("/tokens/{}", segment(name))).await?;
    output::print(format!("revoked {name}\n").as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_written() {
        let of = |store: &str, access: &str, tables: &[&str]| Scope {
            store: store.to_owned(),
            access: access.to_owned(),
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        };
        assert_eq!(scope("notes:read"), Ok(of("notes", "read", &[])));
        assert_eq!(scope("gateway:read-write:a,b"), Ok(of("gateway", "read-write", &["a", "b"])));
        for wrong in ["", "notes", "notes:", "notes:write", ":read", "gateway:read:", "gateway:read:a,,b"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
