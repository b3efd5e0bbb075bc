//! `tollgate sql`.

mod print;
mod rows;
mod shell;
mod statements;
mod transfer;

use super::args::{Sql, SqlCommand};
use super::client::Client;
use super::failure::Failure;
use print::{Json, Lines, Style};
use rows::Rows;

pub(super) async fn run(client: &Client, sql: Sql) -> Result<(), Failure> {
    match (sql.command, sql.database, sql.statement) {
        (Some(SqlCommand::Import { database, file, replace }), ..) => {
            transfer::import(client, &database, &file, replace).await
        }
        (Some(SqlCommand::Export { database, file }), ..) => transfer::export(client, &database, &file).await,
        (None, Some(database), Some(statement)) => one(client, &database, &statement, sql.json).await,
        (None, Some(database), None) => shell::run(client, &database, sql.json).await,
        // clap asks for a database.
        (None, None, _) => Ok(()),
    }
}

/// Runs one statement and prints its result as it comes.
async fn one(client: &Client, database: &str, sql: &str, json: bool) -> Result<(), Failure> {
    let rows = Rows::of(client, database, sql, &[]).await?;
    if json { print(rows, Json::default()).await } else { print(rows, Lines).await }
}

/// Bytes after which what was made so far is printed.
const PRINT_BYTES: usize = 64 * 1024;

async fn print(mut rows: Rows, mut style: impl Style) -> Result<(), Failure> {
    let mut text = String::new();
    style.head(&mut text, rows.columns());
    while let Some(row) = rows.next().await? {
        style.row(&mut text, &row);
        if text.len() >= PRINT_BYTES {
            if !super::output::print_if_read(text.as_bytes())? {
                return Ok(());
            }
            text.clear();
        }
    }
    style.end(&mut text, rows.columns(), rows.end());
    Ok(super::output::print(text.as_bytes())?)
}
