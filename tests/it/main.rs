//! End-to-end tests: the real binary, real components, real clients.
