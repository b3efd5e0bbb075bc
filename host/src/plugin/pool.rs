//! Warm instances of one generation.
