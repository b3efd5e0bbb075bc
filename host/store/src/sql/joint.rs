//! The SQL part of a joint commit.

use super::{Database, SqlError, Statement};
use crate::{CommitError, Joint, kv::KvWrite};

/// Statements on one database.
#[derive(Debug)]
pub(crate) struct JointSql {}

impl JointSql {
    /// Runs the statements in one transaction and commits it with the kv writes, in one message to the committer.
    pub(crate) async fn commit(self, _kv: Vec<KvWrite>) -> Result<(), CommitError> {
        todo!()
    }
}

impl Joint {
    /// Adds: run a statement, after those added before. All statements of a joint commit belong to one database.
    pub fn statement(self, _database: &Database, _statement: Statement) -> Result<Self, SqlError> {
        todo!()
    }
}
