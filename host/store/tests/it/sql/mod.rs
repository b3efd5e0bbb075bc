//! SQL from outside: it does what native SQLite does.

mod differential;
mod engines;
mod files;
mod generator;
mod limits;
mod paging;
mod scripts;
