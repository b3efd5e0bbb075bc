//! Durable queues.
