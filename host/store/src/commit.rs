//! The committer: one thread owns the write transaction and groups what waits into one commit.
