//! `wasi:logging/logging`: the log of a plugin, under the limits of its stdout and stderr.

use wasmtime::component::{HasData, Linker};

use super::{Budget, Host};
use crate::plugin::bindings::standards::wasi::logging::logging as wit;
use crate::plugin::limits::LOG_LINE_BYTES;
use crate::plugin::{PluginLog, cut};

/// The host's side of one call.
pub(super) struct Logger<'a> {
    log: &'a PluginLog,
    budget: &'a mut Budget,
}

/// Says to the engine that host functions get a [`Logger`].
struct HasLogger;

impl HasData for HasLogger {
    type Data<'a> = Logger<'a>;
}

/// Links the interface.
pub(super) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasLogger>(linker, |state| {
        let (log, budget) = state.log();
        Logger { log, budget }
    })
}

impl wit::Host for Logger<'_> {
    async fn log(&mut self, level: wit::Level, context: String, message: String) {
        // There is no error to answer: what is beyond the budget is counted there.
        if self.budget.call(context.len() + message.len()).is_err() {
            return;
        }
        let message = cut(message, LOG_LINE_BYTES);
        let context = cut(context, LOG_LINE_BYTES);
        let line = if context.is_empty() { message } else { format!("{context}: {message}") };
        self.log.line(name(level), cut(line, LOG_LINE_BYTES).as_bytes());
    }
}

fn name(level: wit::Level) -> &'static str {
    match level {
        wit::Level::Trace => "trace",
        wit::Level::Debug => "debug",
        wit::Level::Info => "info",
        wit::Level::Warn => "warn",
        wit::Level::Error => "error",
        wit::Level::Critical => "critical",
    }
}
