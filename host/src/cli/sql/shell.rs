//! The shell: `tollgate sql DATABASE` without a statement. On a terminal it talks with a person; from a pipe it runs the
//! statements it reads.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::super::client::Client;
use super::super::failure::Failure;
use super::super::output;
use super::print::{Json, Lines, Table};
use super::rows::Rows;
use super::statements::Statements;

/// Longest statement that is collected; the server takes less.
const STATEMENT_BYTES: usize = 1024 * 1024;

const HELP: &str = "\
Statements end with a semicolon and may have many lines; each is a transaction. Ctrl-C gives up a line or a statement
that runs, Ctrl-D leaves.
.tables            names of tables and views
.schema [TABLE]    how they were made
.help              this text
.quit              leave
";

const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')
    AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";

const SCHEMA: &str =
    "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name = coalesce(?1, tbl_name)
    ORDER BY tbl_name, type = 'table' DESC, name";

/// How results are printed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Table,
    Lines,
    Json,
}

/// A shell on one database.
struct Shell<'a> {
    client: &'a Client,
    database: &'a str,
    form: Form,
}

/// Runs statements from standard input until it ends.
pub(super) async fn run(client: &Client, database: &str, json: bool) -> Result<(), Failure> {
    let terminal = io::stdin().is_terminal();
    let form = match (json, terminal && io::stdout().is_terminal()) {
        (true, _) => Form::Json,
        (false, true) => Form::Table,
        (false, false) => Form::Lines,
    };
    let shell = Shell { client, database, form };
    if terminal { shell.converse().await } else { shell.obey().await }
}

impl Shell<'_> {
    /// Runs what comes from a pipe; the first failure ends it, with its line.
    async fn obey(&self) -> Result<(), Failure> {
        let mut statements = Statements::default();
        for (number, line) in (1_u64..).zip(io::stdin().lock().lines()) {
            let line =
                line.map_err(|error| anyhow::Error::new(error).context("cannot read the statements"))?;
            let place = |failure: Failure| failure.at(format!("line {number}"));
            if statements.is_blank() && line.starts_with('.') {
                if self.command(&line).await.map_err(place)? {
                    return Ok(());
                }
                continue;
            }
            statements.push(&line);
            while let Some(statement) = statements.next() {
                self.statement(&statement).await.map_err(place)?;
            }
            if statements.len() > STATEMENT_BYTES {
                return Err(place(too_long()));
            }
        }
        match statements.rest() {
            Some(statement) => self.statement(&statement).await.map_err(|failure| failure.at("the end")),
            None => Ok(()),
        }
    }

    /// Talks with a person.
    async fn converse(&self) -> Result<(), Failure> {
        eprintln!("Database `{}`. Statements end with `;`; .help says more.", self.database);
        let mut lines = typed();
        // One for all, so that none is lost between two waits.
        let interrupts = signal(SignalKind::interrupt());
        let mut interrupts = interrupts.map_err(|error| anyhow::Error::new(error).context("no signals"))?;
        let mut statements = Statements::default();
        loop {
            let fresh = statements.is_blank();
            if fresh {
                eprint!("{}> ", self.database);
            } else {
                eprint!("   ...> ");
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = interrupts.recv() => {
                    statements.clear();
                    eprintln!();
                    continue;
                }
            };
            let Some(line) = line else {
                eprintln!();
                return Ok(());
            };
            if fresh && line.starts_with('.') {
                match self.command(&line).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(failure) => failure.print(),
                }
                continue;
            }
            statements.push(&line);
            while let Some(statement) = statements.next() {
                self.interruptible(&statement, &mut interrupts).await;
            }
            if statements.len() > STATEMENT_BYTES {
                too_long().print();
                statements.clear();
            }
        }
    }

    /// Runs a statement until it ends or the person has waited enough.
    async fn interruptible(&self, statement: &str, interrupts: &mut Signal) {
        let started = Instant::now();
        tokio::select! {
            result = self.statement(statement) => match result {
                Ok(()) => eprintln!("({} ms)", started.elapsed().as_millis()),
                Err(failure) => failure.print(),
            },
            _ = interrupts.recv() => eprintln!("given up; what has begun to write may still be written"),
        }
    }

    async fn statement(&self, sql: &str) -> Result<(), Failure> {
        self.print(Rows::of(self.client, self.database, sql, &[]).await?).await
    }

    /// Runs one of the shell's own commands; true: it was to leave.
    async fn command(&self, line: &str) -> Result<bool, Failure> {
        let mut words = line.split_whitespace();
        match (words.next().unwrap_or_default(), words.next(), words.next()) {
            (".quit" | ".exit", None, None) => return Ok(true),
            (".help", None, None) => output::print(HELP.as_bytes())?,
            (".tables", None, None) => self.names(TABLES, &[]).await?,
            (".schema", table, None) => self.names(SCHEMA, &[json!(table)]).await?,
            _ => {
                let message = format!("`{line}` is no command");
                let hint = Some(".help shows the commands; statements begin without a dot".to_owned());
                return Err(Failure::Refused { message, hint });
            }
        }
        Ok(false)
    }

    /// Prints the first column, a line for each row.
    async fn names(&self, sql: &str, params: &[Value]) -> Result<(), Failure> {
        let mut rows = Rows::of(self.client, self.database, sql, params).await?;
        while let Some(row) = rows.next().await? {
            let name = row.first().and_then(Value::as_str).unwrap_or_default();
            output::print(format!("{name}\n").as_bytes())?;
        }
        Ok(())
    }

    async fn print(&self, rows: Rows) -> Result<(), Failure> {
        match self.form {
            Form::Table => super::print(rows, Table::default()).await,
            Form::Lines => super::print(rows, Lines).await,
            Form::Json => super::print(rows, Json::default()).await,
        }
    }
}

fn too_long() -> Failure {
    let message = format!("a statement longer than {STATEMENT_BYTES} bytes has no end");
    Failure::Refused { message, hint: Some("statements end with a semicolon".to_owned()) }
}

/// The lines of standard input, read on a thread of their own so that a signal can come between.
fn typed() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
