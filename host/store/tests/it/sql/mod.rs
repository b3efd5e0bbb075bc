//! SQL from outside: it does what native SQLite does.

mod differential;
mod engines;
mod files;
mod functions;
mod generator;
mod limits;
mod paging;
mod scripts;
