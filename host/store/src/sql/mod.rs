//! SQL databases: SQLite over pages kept in redb.
//!
//! SQLite's pager is left as it is; a VFS gives it a file whose chunks are redb values. A reader pins a redb snapshot for
//! as long as it holds SQLite's shared lock; the one writer buffers its pages and hands them to the committer as one
//! message at the moment SQLite commits. So readers and the writer never wait for each other, and pages become durable
//! together with the kv changes of the same message.

mod access;
mod check;
mod connection;
mod database;
mod databases;
mod error;
mod export;
pub(crate) mod files;
mod functions;
mod guard;
mod header;
mod import;
mod joint;
pub mod limits;
pub(crate) mod pages;
mod paging;
mod readers;
mod result;
mod shape;
mod source;
mod value;
#[expect(unsafe_code, reason = "SQLite calls a VFS through C function pointers")]
mod vfs;
mod writer;

pub use access::{Access, TableGrant};
pub use check::SqlReport;
pub(crate) use check::report;
pub use database::Database;
pub(crate) use databases::Databases;
pub use error::SqlError;
pub use export::Export;
pub use import::{Import, Imported};
pub(crate) use joint::JointSql;
pub use paging::Pages;
pub use source::Source;
pub use value::{Outcome, Statement, Value};
#[cfg(test)]
mod tests;
