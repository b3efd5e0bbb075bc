//! What can be written behind `tollgate account`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    cli::{limits::LimitArgs, usage::RecentUsage},
    config::limits::WEIGHT_MOST,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AccountCommand {
    /// Make an account; it serves when this returns.
    #[command(after_help = "\
The key comes from the terminal, a variable or stdin, never from an argument, which everybody on the machine could see. It
is kept encrypted and shown to nobody again. The built-in demo upstream goes when there is an account.

Examples:
  tollgate account create --name main --base-url https://api.openai.com
  tollgate account create --name claude --dialect anthropic --base-url https://api.anthropic.com \\
    --api-key-env ANTHROPIC_API_KEY --models claude-sonnet-4-5 --priority 1 --rpm 500 --cost-per-day 20
  pass llm/spare | tollgate account create --name spare --base-url https://llm.example.com --api-key-stdin
  tollgate account create --name far --base-url https://llm.example.org --proxy socks5://10.0.0.1:1080 --proxy-user me")]
    Create(Box<Create>),
    /// List the accounts, of the store and of the configuration.
    #[command(after_help = "Example:\n  tollgate account list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show an account and what it has been used for, but for its secrets.
    #[command(after_help = "Example:\n  tollgate account show main --json")]
    Show {
        /// The account's name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What an account has used in the last 60 s and 24 h, and of each of its limits.
    #[command(after_help = "\
As `tollgate key usage`; its concurrency is that of this moment.

Example:
  tollgate account usage main --models")]
    Usage(RecentUsage),
    /// Change an account of the store; what is not named stays.
    #[command(after_help = "\
Examples:
  tollgate account update main --rpm 1000 --models gpt-4o,gpt-4o-mini
  tollgate account update main --alias fast=gpt-4o-mini --alias smart=gpt-4o
  tollgate account update main --cost-per-month 300 --limit 'gpt-4o:rpm=100'
  tollgate account update main --stream-usage --clear rpm,models
  tollgate account update main --api-key-env NEW_KEY")]
    Update(Box<Update>),
    /// Let an account serve again.
    #[command(after_help = "Example:\n  tollgate account enable main")]
    Enable {
        /// The account's name.
        name: String,
    },
    /// Let an account serve no more; requests that run on it finish.
    #[command(after_help = "Example:\n  tollgate account disable main")]
    Disable {
        /// The account's name.
        name: String,
    },
    /// Remove an account from the store; requests that run on it finish.
    #[command(after_help = "Example:\n  tollgate account delete main")]
    Delete {
        /// The account's name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// A name, unique among all accounts.
    #[arg(long, value_name = "NAME")]
    pub(super) name: String,
    /// Where its upstream is.
    #[arg(long, value_name = "URL")]
    pub(super) base_url: String,
    /// It has no key: none is sent.
    #[arg(long, conflicts_with_all = ["api_key_env", "api_key_stdin"])]
    pub(super) no_api_key: bool,
    #[command(flatten)]
    pub(super) fields: Fields,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The account's name.
    pub(super) name: String,
    /// Another place of its upstream.
    #[arg(long, value_name = "URL")]
    pub(super) base_url: Option<String>,
    /// Ask for another key at the terminal.
    #[arg(long, conflicts_with_all = ["api_key_env", "api_key_stdin"])]
    pub(super) api_key: bool,
    /// Fields to take back to their defaults, separated by commas, such as rpm,cost-per-day,models,expires,api-key.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) clear: Vec<String>,
    #[command(flatten)]
    pub(super) fields: Fields,
}

/// What both can say.
#[derive(Debug, Args)]
pub(in crate::cli) struct Fields {
    /// Read its key from this variable.
    #[arg(long, value_name = "VARIABLE")]
    pub(super) api_key_env: Option<String>,
    /// Read its key from the first line of stdin.
    #[arg(long, conflicts_with = "api_key_env")]
    pub(super) api_key_stdin: bool,
    /// What its upstream speaks: openai (the default), anthropic or gemini.
    #[arg(long, value_name = "DIALECT")]
    pub(super) dialect: Option<String>,
    /// Models it serves, separated by commas; without it all.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) models: Option<Vec<String>>,
    /// Another name that it serves, and its own model which that stands for, such as fast=gpt-4o-mini; can be given again.
    #[arg(long, value_name = "NAME=MODEL", value_parser = alias)]
    pub(super) alias: Vec<(String, String)>,
    /// How often it is drawn among accounts of its priority [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=WEIGHT_MOST))]
    pub(super) weight: Option<u64>,
    /// Lower numbers are tried first [default: 0].
    #[arg(long, value_name = "N")]
    pub(super) priority: Option<u32>,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    /// The proxy on the way to its upstream: http://HOST:PORT or socks5://HOST:PORT, which resolves names itself.
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
    /// Who this gateway is for the proxy; its password is asked for at the terminal, unless one of these says otherwise.
    #[arg(long, value_name = "USER")]
    pub(super) proxy_user: Option<String>,
    /// Read the proxy's password from this variable.
    #[arg(long, value_name = "VARIABLE")]
    pub(super) proxy_password_env: Option<String>,
    /// Read the proxy's password from stdin, from the line after the key's if that comes from there too.
    #[arg(long, conflicts_with = "proxy_password_env")]
    pub(super) proxy_password_stdin: bool,
    /// Ask for usage in streams whose client does not, and keep the answer to that from the client: what a model thinks unseen
    /// then counts. For upstreams in OpenAI's dialect that know `stream_options`.
    #[arg(long)]
    pub(super) stream_usage: bool,
    /// Days from now after which it is not asked any more.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub(super) expires: Option<u64>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Whom to ask about it.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) email: Option<String>,
    /// Certificates, as PEM, that its upstream's is trusted by in place of the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, model)) if !name.is_empty() && !model.is_empty() => {
            Ok((name.trim().to_owned(), model.trim().to_owned()))
        }
        _ => Err("write it like fast=gpt-4o-mini".to_owned()),
    }
}
