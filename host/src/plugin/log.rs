//! What a plugin says, as lines of the log: its stdout, its stderr, its calls of `wasi:logging`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::limits;
use super::logs::Ring;
use super::meter::Tally;

/// The log of one generation; all its instances share the number of lines.
pub(crate) struct PluginLog {
    plugin: Arc<str>,
    ring: Arc<Ring>,
    tally: Arc<Tally>,
    second: Mutex<Second>,
}

/// Lines of the second that runs.
struct Second {
    began: Instant,
    lines: u32,
    dropped: u64,
}

/// One of the two streams of an instance.
#[derive(Clone)]
pub(crate) struct Stream {
    log: Arc<PluginLog>,
    name: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
}

impl PluginLog {
    pub(crate) fn new(plugin: Arc<str>, ring: Arc<Ring>, tally: Arc<Tally>) -> PluginLog {
        let second = Second { began: Instant::now(), lines: 0, dropped: 0 };
        PluginLog { plugin, ring, tally, second: Mutex::new(second) }
    }

    /// Keeps a line of the host's own about the plugin, one that was admitted.
    pub(crate) fn note(&self, text: &str) {
        self.ring.push("host", text);
    }

    /// Whether one more line about the plugin may go to the log; its failures count too, since it can make many.
    pub(crate) fn admits(&self) -> bool {
        let (admitted, dropped) = self.second.lock().take();
        if !admitted {
            self.tally.line_dropped();
        }
        if dropped > 0 {
            tracing::warn!(plugin = &*self.plugin, dropped, "lines of a plugin were dropped");
            self.note(&format!("{dropped} lines were dropped: too many in one second"));
        }
        admitted
    }

    /// Keeps a line from the guest, unless it has said too much in this second. Its length is the caller's to bound.
    pub(crate) fn line(&self, stream: &'static str, line: &[u8]) {
        if self.admits() {
            let plugin = &*self.plugin;
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end();
            tracing::info!(plugin, stream, line, "a plugin wrote");
            self.ring.push(stream, line);
        }
    }
}

impl Second {
    /// Whether one more line may go to the log, and how many were dropped before this second.
    fn take(&mut self) -> (bool, u64) {
        let mut dropped = 0;
        if self.began.elapsed() >= Duration::from_secs(1) {
            dropped = self.dropped;
            *self = Second { began: Instant::now(), lines: 0, dropped: 0 };
        }
        let admitted = self.lines < limits::LOG_LINES_PER_SECOND;
        if admitted {
            self.lines += 1;
        } else {
            self.dropped += 1;
        }
        (admitted, dropped)
    }
}

impl Stream {
    pub(crate) fn new(log: Arc<PluginLog>, name: &'static str) -> Stream {
        Stream { log, name, line: Arc::default() }
    }

    fn push(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for &byte in bytes {
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() >= limits::LOG_LINE_BYTES {
                self.log.line(self.name, &line);
                line.clear();
            }
        }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(limits::LOG_LINE_BYTES)
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(plugin: &str) -> PluginLog {
        PluginLog::new(Arc::from(plugin), Arc::default(), Arc::new(Tally::new(plugin)))
    }

    #[test]
    fn a_second_has_so_many_lines_and_no_more() {
        let log = log("noisy");
        let mut second = log.second.lock();
        let admitted = (0..limits::LOG_LINES_PER_SECOND * 2).filter(|_| second.take().0).count();
        assert_eq!(admitted, limits::LOG_LINES_PER_SECOND as usize);
        assert_eq!(second.dropped, u64::from(limits::LOG_LINES_PER_SECOND));
    }

    #[test]
    fn a_line_without_end_is_broken_rather_than_kept() {
        let stream = Stream::new(Arc::new(log("endless")), "stdout");
        stream.push(&vec![b'x'; limits::LOG_LINE_BYTES * 3 + 1]);
        assert_eq!(stream.line.lock().len(), 1);
    }
}
