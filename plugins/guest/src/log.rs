//! Lines for the plugin's log, which `tollgate plugin logs` shows.
//!
//! They go to WASI's stdout by its own interface: where a plugin is built without WASI, `println!` leads nowhere.

/// Writes a line. The host keeps the last ones, and drops what comes too fast; nothing is told of either.
pub fn line(text: &str) {
    write(&format!("{text}\n"));
}

#[cfg(target_family = "wasm")]
fn write(text: &str) {
    /// The most that one call of the interface takes.
    const CHUNK: usize = 4096;

    let stdout = crate::bindings::output::wasi::cli::stdout::get_stdout();
    for chunk in text.as_bytes().chunks(CHUNK) {
        // A log that takes no more is no reason to fail a request.
        let _ = stdout.blocking_write_and_flush(chunk);
    }
}

#[cfg(not(target_family = "wasm"))]
fn write(text: &str) {
    print!("{text}");
}
