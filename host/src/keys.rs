//! Client keys: created, listed, revoked, looked up by their hash.
