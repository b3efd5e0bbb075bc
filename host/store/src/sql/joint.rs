//! The SQL part of a joint commit.

use std::sync::Arc;

use super::{Database, SqlError, Statement};
use crate::{CommitError, Joint, commit::Change, core::Open};

/// Statements on one database.
#[derive(Debug)]
pub(crate) struct JointSql {
    database: Database,
    statements: Vec<Statement>,
}

impl JointSql {
    /// Whether the database is one of that store.
    pub(crate) fn belongs_to(&self, store: &Arc<Open>) -> bool {
        self.database.belongs_to(store)
    }

    /// Runs the statements in one transaction and commits it with the companions, in one message to the committer.
    pub(crate) async fn commit(self, companions: Vec<Change>) -> Result<(), CommitError> {
        self.database.write(self.statements, companions).await?;
        Ok(())
    }
}

impl Joint {
    /// Adds: run a statement, after those added before. All statements of a joint commit belong to one database.
    pub fn statement(mut self, database: &Database, statement: Statement) -> Result<Self, SqlError> {
        match &mut self.sql {
            Some(sql) if !sql.database.is_same(database) => {
                return Err(SqlError::Invalid("a joint commit has one database".to_owned()));
            }
            Some(sql) => sql.statements.push(statement),
            none => *none = Some(JointSql { database: database.clone(), statements: vec![statement] }),
        }
        Ok(self)
    }
}
