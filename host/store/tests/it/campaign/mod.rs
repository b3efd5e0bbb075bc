//! All capabilities at once, and the process is killed, the power fails, or the disk does. Whatever happens: what was
//! acknowledged is found, of a joint commit all or nothing, and everything fits together.
//!
//! The default is short. A campaign is `TOLLGATE_CRASH_ROUNDS=500 cargo test -p tollgate-store --test it campaign`.

mod faults;
mod files;
mod kill;
mod objects;
mod power;
mod rows;
mod world;

use std::error::Error;

/// What may fail because of the disk. What is wrong is an assertion.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: &str = "TOLLGATE_CRASH_ROUNDS";

/// How many rounds, by default as many as take a few seconds.
fn rounds(default: u64) -> u64 {
    std::env::var(ROUNDS).map_or(default, |rounds| rounds.parse().unwrap())
}
