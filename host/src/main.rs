//! The `tollgate` binary.

use std::process::ExitCode;

/// A gateway allocates on one thread and frees on another all day; in a profile the system's allocator took about a sixth
/// of a request's CPU time for that. Without huge pages (`no_thp`): of each of them a thread used some, and a third of the
/// memory of a server with a thousand keys was what it had not used.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::main()
}
