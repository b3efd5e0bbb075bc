//! The command line: `serve` runs the server, everything else talks to a running one.

mod args;
mod client;
mod failure;
mod keys;
mod kv;
mod output;
mod plugin;
mod serve;
mod sql;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command, KeyCommand, KvCommand, PluginCommand};
use client::Client;
use failure::Failure;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { connection, command } = arguments;
    match command {
        Command::Serve(serve) => serve::run(serve, connection),
        Command::Plugin(PluginCommand::Build { names }) => plugin::build(&names),
        Command::Plugin(PluginCommand::Check { file, manifest }) => plugin::check(&file, manifest.as_deref()),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::Failed(anyhow::Error::new(error).context("cannot start")))?;
            runtime.block_on(remote(&Client::new(connection)?, command))
        }
    }
}

async fn remote(client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::Key(KeyCommand::Create(key)) => keys::create(client, key).await,
        Command::Key(KeyCommand::List { json }) => keys::list(client, json).await,
        Command::Key(KeyCommand::Revoke { name }) => keys::revoke(client, &name).await,
        Command::Plugin(PluginCommand::Push(push)) => plugin::push(client, push).await,
        Command::Plugin(PluginCommand::List { json }) => plugin::list(client, json).await,
        Command::Plugin(PluginCommand::Rollback { name, to }) => plugin::rollback(client, &name, to).await,
        Command::Sql { database, statement, json } => sql::run(client, &database, &statement, json).await,
        Command::Kv(KvCommand::Get { store, key, json }) => kv::get(client, &store, &key, json).await,
        Command::Kv(KvCommand::List { store, prefix, limit }) => {
            kv::list(client, &store, prefix.as_deref(), limit).await
        }
        // These need no server and were handled before.
        Command::Serve(_) | Command::Plugin(PluginCommand::Build { .. } | PluginCommand::Check { .. }) => {
            Ok(())
        }
    }
}
