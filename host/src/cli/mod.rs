//! The command line: `serve` runs the server, everything else talks to a running one.

mod account;
mod args;
mod audit;
mod blacklist;
mod client;
mod duration;
mod failure;
mod keys;
mod kv;
mod limits;
mod output;
mod plugin;
mod prompt;
mod reload;
mod secrets;
mod serve;
mod sql;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::config::limits::DATA;
use crate::plugin::ComponentError;
use crate::plugin::compile::compile_apart;
use account::AccountCommand;
use args::{Arguments, Command, KvCommand, SecretsCommand};
use client::Client;
use failure::Failure;
use plugin::PluginCommand;
use store::StoreCommand;
use tokens::TokenCommand;

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
        Command::Openapi => Ok(output::print_json(&crate::app::openapi())?),
        Command::Compile { cpu_seconds, bytes } => compile(cpu_seconds, bytes),
        Command::Plugin(PluginCommand::New(new)) => plugin::new(&new),
        Command::Plugin(PluginCommand::Build { names }) => plugin::build(&names),
        Command::Plugin(PluginCommand::Export(export)) => plugin::export(&export),
        Command::Plugin(PluginCommand::Keygen { file }) => plugin::keygen(&file),
        Command::Plugin(PluginCommand::Sign { path, key }) => plugin::sign(path.as_deref(), &key),
        Command::Plugin(PluginCommand::Check { path, manifest, rounds, seed }) => {
            runtime()?.block_on(plugin::check(path.as_deref(), manifest.as_deref(), rounds, seed))
        }
        Command::Plugin(PluginCommand::Inspect { what, json }) if plugin::is_here(what.as_deref()) => {
            plugin::inspect(what.as_deref().map(Path::new), json)
        }
        Command::Plugin(PluginCommand::Test(test)) => runtime()?.block_on(plugin::test(test)),
        Command::Plugin(PluginCommand::Bench(bench)) => runtime()?.block_on(plugin::bench(bench)),
        Command::Store(StoreCommand::Compact { json }) => {
            let data = connection.data.unwrap_or_else(|| DATA.into());
            runtime()?.block_on(store::compact(&data, json))
        }
        command => runtime()?.block_on(remote(&Client::new(connection)?, command)),
    }
}

/// Its exit status tells the server whether the component is wrong or the system.
fn compile(cpu_seconds: u64, bytes: u64) -> Result<(), Failure> {
    let compiled = compile_apart(cpu_seconds, bytes, std::io::stdin().lock(), std::io::stdout().lock());
    compiled.map_err(|error| match error {
        ComponentError::Invalid(reason) => Failure::Failed(anyhow::Error::msg(reason)),
        ComponentError::NotCompiled(reason) => Failure::Usage(reason),
        other => Failure::Failed(other.into()),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(anyhow::Error::new(error).context("cannot start")))
}

async fn remote(client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::Key(command) => keys::run(client, command).await,
        Command::Account(AccountCommand::Create(create)) => account::create(client, *create).await,
        Command::Account(AccountCommand::Update(update)) => account::update(client, *update).await,
        Command::Account(AccountCommand::List { json }) => account::list(client, json).await,
        Command::Account(AccountCommand::Show { name, json }) => account::show(client, &name, json).await,
        Command::Account(AccountCommand::Usage(usage)) => account::usage(client, usage).await,
        Command::Account(AccountCommand::Enable { name }) => account::switch(client, &name, true).await,
        Command::Account(AccountCommand::Disable { name }) => account::switch(client, &name, false).await,
        Command::Account(AccountCommand::Delete { name }) => account::delete(client, &name).await,
        Command::Reload => reload::run(client).await,
        Command::Audit(command) => audit::run(client, command).await,
        Command::Blacklist(command) => blacklist::run(client, command).await,
        Command::Usage(what) => usage::run(client, what).await,
        Command::Secrets(SecretsCommand::Rotate(rotate)) => secrets::rotate(client, rotate).await,
        Command::Token(TokenCommand::Create(token)) => tokens::create(client, token).await,
        Command::Token(TokenCommand::List { json }) => tokens::list(client, json).await,
        Command::Token(TokenCommand::Revoke { name }) => tokens::revoke(client, &name).await,
        Command::Plugin(PluginCommand::Watch) => plugin::watch(client).await,
        Command::Plugin(PluginCommand::Push(push)) => plugin::push(client, push).await,
        Command::Plugin(PluginCommand::Inspect { what, json }) => {
            plugin::inspect_running(client, &what.unwrap_or_default(), json).await
        }
        Command::Plugin(PluginCommand::List { versions: true, .. }) => plugin::list_versions(client).await,
        Command::Plugin(PluginCommand::List { json, .. }) => plugin::list(client, json).await,
        Command::Plugin(PluginCommand::Logs { name, follow }) => plugin::logs(client, &name, follow).await,
        Command::Plugin(PluginCommand::Set { name, settings, unset }) => {
            plugin::set(client, &name, settings, unset).await
        }
        Command::Plugin(PluginCommand::Promote { name }) => plugin::promote(client, &name).await,
        Command::Plugin(PluginCommand::Rollback { name, to }) => plugin::rollback(client, &name, to).await,
        Command::Sql(sql) => sql::run(client, sql).await,
        Command::Kv(KvCommand::Get { store, key, json }) => kv::get(client, &store, &key, json).await,
        Command::Kv(KvCommand::List { store, prefix, limit }) => {
            kv::list(client, &store, prefix.as_deref(), limit).await
        }
        Command::Kv(KvCommand::Set { store, key, value, ttl_ms }) => {
            kv::set(client, &store, &key, value, ttl_ms).await
        }
        Command::Kv(KvCommand::Delete { store, key }) => kv::delete(client, &store, &key).await,
        Command::Store(StoreCommand::Stats(which)) => store::stats(client, which).await,
        Command::Store(StoreCommand::Check(which)) => store::check(client, which).await,
        // These need no server and were handled before.
        Command::Serve(_)
        | Command::Openapi
        | Command::Store(StoreCommand::Compact { .. })
        | Command::Compile { .. }
        | Command::Plugin(
            PluginCommand::New(_)
            | PluginCommand::Build { .. }
            | PluginCommand::Export(_)
            | PluginCommand::Keygen { .. }
            | PluginCommand::Sign { .. }
            | PluginCommand::Check { .. }
            | PluginCommand::Test(_)
            | PluginCommand::Bench(_),
        ) => Ok(()),
    }
}
