//! The only wiring: from a configuration to a running server.
