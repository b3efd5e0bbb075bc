//! Named kv stores, SQL databases and queues in one redb file.

pub mod commit;
pub mod kv;
pub mod limits;
pub mod queue;
pub mod sql;
