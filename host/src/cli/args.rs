//! What can be written on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::account::AccountCommand;
use super::blacklist::BlacklistCommand;
use super::keys::KeyCommand;
use super::plugin::PluginCommand;
use super::store::StoreCommand;
use super::tokens::TokenCommand;
use crate::config::limits;

/// An HTTP gateway for LLM and other APIs whose rules are WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    after_help = "\
Examples:
  tollgate serve                                  run on 127.0.0.1:8080 with a built-in demo upstream
  tollgate key create --name alice --rpm 60       a key for a client
  tollgate sql gateway \"select count(*) from request_logs\"

Exit codes: 0 done · 1 refused or failed · 2 wrong usage, or no server is running"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which server a command talks to: the one at a URL, or else the one that serves a data directory here.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// URL of a running server; without it the command goes through the socket in the data directory.
    #[arg(long, global = true, env = "TOLLGATE_SERVER", value_name = "URL")]
    pub(super) server: Option<String>,
    /// Admin token, needed with --server; for `serve`, the token from now on.
    #[arg(long, global = true, env = "TOLLGATE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Data directory of the server.
    #[arg(
        long,
        global = true,
        env = "TOLLGATE_DATA",
        value_name = "DIR",
        help = format!("Data directory [default: {}]", limits::DATA)
    )]
    pub(super) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server.
    Serve(Serve),
    /// Client keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Upstream accounts in the store, beside those of the configuration.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Accounts and clients that are kept out for a while.
    #[command(subcommand)]
    Blacklist(BlacklistCommand),
    /// What is kept encrypted: credentials of accounts.
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Data tokens: what opens the stores over HTTP, under /api.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the OpenAPI document of the data API and the admin API; a server has it at /openapi.json.
    #[command(after_help = "Example:\n  tollgate openapi > openapi.json")]
    Openapi,
    /// Compile what comes on standard input: how a server compiles components, in a process that has limits.
    #[command(hide = true)]
    Compile {
        /// Processor time at most, in seconds.
        cpu_seconds: u64,
        /// Memory at most, in bytes.
        bytes: u64,
    },
    /// Read the configuration again; what can change takes over at once.
    #[command(after_help = "\
Accounts of the configuration, [gateway], [audit] and log take over while requests flow; what needs a restart is named. A
file with anything wrong in it changes nothing. SIGHUP does the same. Variables are those the server was started with.

Example:
  tollgate reload")]
    Reload,
    /// Who changed what, and when.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What clients have used: requests, tokens and what they cost, by day, key, account or model.
    #[command(after_help = "\
Days are those of UTC; without --since thirty of them. Models and accounts without a name are of requests that reached no
account. What a model without a price was used for costs nothing here.

Examples:
  tollgate usage
  tollgate usage --by key --since 2026-01-01 --until 2026-01-31
  tollgate usage --by model --json")]
    Usage(Usage),
    /// Plugins: WebAssembly components that make the rules.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// SQL databases: run a statement, a shell, import and export of SQLite files.
    Sql(Sql),
    /// Kv stores: look into them, and change an entry.
    #[command(subcommand)]
    Kv(KvCommand),
    /// The store: what is in it, whether it is in order, and giving space back.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Prints a header line and a line for each row as they come, columns separated by tabs; a result may have any size. Within
a value \\t, \\n, \\r and \\\\ stand for a tab, a newline, a carriage return and a backslash; \\N is NULL, and a blob is \\x
and hexadecimal digits. A statement that returns no rows prints how many it wrote to stderr. A database named like a
command stands behind `--`.

Without a statement it runs those that come from a pipe, each ended by a semicolon, up to the first that fails; on a
terminal it is a shell, in which .help says more.

Examples:
  tollgate sql gateway \"select model, count(*) from request_logs group by model\"
  tollgate sql gateway \"select * from api_key_metrics\" --json
  tollgate sql gateway
  tollgate sql reports < schema.sql
  tollgate sql export gateway backup.sqlite
  tollgate sql import reports old.sqlite"
)]
pub(super) struct Sql {
    #[command(subcommand)]
    pub(super) command: Option<SqlCommand>,
    /// The database; the gateway's tables are in `gateway`.
    #[arg(required = true)]
    pub(super) database: Option<String>,
    /// One statement, in SQLite's dialect; without it the shell.
    pub(super) statement: Option<String>,
    /// Print JSON: {\"columns\", \"rows\", \"rows_written\", \"last_insert_rowid\"}.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SqlCommand {
    /// Take an SQLite file over as the content of a database, which [sql.NAME] in tollgate.toml names.
    #[command(after_help = "\
The database serves its old content until the file has come whole and was checked; what others write to it meanwhile
is lost with it. An import that breaks off, even by a crash, changes nothing and can be repeated. Changes in a
FILE-wal are folded into FILE first, as `PRAGMA wal_checkpoint` does.

Examples:
  tollgate sql import reports old.sqlite
  tollgate sql import reports old.sqlite --replace")]
    Import {
        /// The database.
        database: String,
        /// The SQLite file.
        file: PathBuf,
        /// Give up what is in the database.
        #[arg(long)]
        replace: bool,
    },
    /// Write a database, as it is at one instant, into a file that any SQLite opens.
    #[command(after_help = "Example:\n  tollgate sql export gateway backup.sqlite")]
    Export {
        /// The database.
        database: String,
        /// The file, which must not be there yet.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The first line on stdout is `listening on http://IP:PORT`; logs go to stderr (TOLLGATE_LOG=debug for more). SIGHUP reads the
configuration again. The
first start of a data directory prints an admin token and a client key, once. TOLLGATE_ADMIN_TOKEN sets the token.
Without an account, in the configuration or made by `tollgate account create`, a built-in demo upstream answers as
account `demo`, in every dialect. An account says with dialect = \"openai\", \"anthropic\" or \"gemini\" what its upstream speaks.

Examples:
  tollgate serve
  tollgate serve --config tollgate.toml --data /var/lib/tollgate --listen 0.0.0.0:8080")]
pub(super) struct Serve {
    /// Configuration file; what the command line names counts more.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", help = format!("Address to listen on; port 0 takes a free one [default: {}]", limits::LISTEN))]
    pub(super) listen: Option<SocketAddr>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, env = "TOLLGATE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, an object a line.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Usage {
    /// What there is a line for each of.
    #[arg(long, value_name = "WHAT", default_value = "day", value_parser = ["day", "key", "account", "model"])]
    pub(super) by: String,
    /// The first day, such as 2026-01-31.
    #[arg(long, value_name = "DATE")]
    pub(super) since: Option<String>,
    /// The last day.
    #[arg(long, value_name = "DATE")]
    pub(super) until: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List the changes that were asked for, the latest first, refused ones too.
    #[command(after_help = "\
Examples:
  tollgate audit list
  tollgate audit list --action \"key create\" --limit 10 --json")]
    List {
        /// Only changes of this kind.
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Only changes before this number: the last one that was listed.
        #[arg(long, value_name = "ID")]
        before: Option<u64>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    /// Encrypt everything anew, under new keys, while the server goes on.
    #[command(after_help = "\
Every credential is sealed with a new key, and that key is kept under a new master key. A master key in a file is made and
replaced by the server; one from the environment or a prompt must be given here, and again at the next start. Backups made
before still need the old master key. A rotation that is cut short is finished at the next start.

Examples:
  tollgate secrets rotate
  tollgate secrets rotate --keep-master-key
  openssl rand -hex 32 | tollgate secrets rotate --new-master-key-stdin")]
    Rotate(Rotate),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Leave the master key as it is.
    #[arg(long)]
    pub(super) keep_master_key: bool,
    /// Read the new master key, 64 hexadecimal digits, from this variable.
    #[arg(long, value_name = "VARIABLE", conflicts_with = "keep_master_key")]
    pub(super) new_master_key_env: Option<String>,
    /// Read it from the first line of stdin.
    #[arg(long, conflicts_with_all = ["keep_master_key", "new_master_key_env"])]
    pub(super) new_master_key_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Print the value of a key, byte for byte.
    #[command(after_help = "Example:\n  tollgate kv get blacklist KEY --json")]
    Get {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// Print JSON, with version and expiry.
        #[arg(long)]
        json: bool,
    },
    /// Write the value of a key.
    #[command(after_help = "\
Examples:
  tollgate kv set notes greeting hello
  tollgate kv set notes greeting hello --ttl-ms 60000")]
    Set {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// The value, as text.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Milliseconds until the key is gone; without it the store's default applies.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        ttl_ms: Option<u64>,
    },
    /// Remove a key; one that is not there is no error.
    #[command(after_help = "Example:\n  tollgate kv delete notes greeting")]
    Delete {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// Print the keys of a store, a line each.
    #[command(after_help = "Example:\n  tollgate kv list quota --prefix client/")]
    List {
        /// The store.
        store: String,
        /// Only keys that start with this.
        #[arg(long)]
        prefix: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
}
