//! The last lines of each plugin, in memory, for whoever asks what it says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::limits::{LOG_KEPT_BYTES, LOG_KEPT_LINES};

/// The rings of all plugins that one engine runs, by name. A ring goes on from one version of its plugin to the next.
#[derive(Default)]
pub(crate) struct Logs {
    rings: Mutex<BTreeMap<Arc<str>, Arc<Ring>>>,
}

impl Logs {
    /// The ring of a plugin.
    pub(crate) fn of(&self, plugin: &Arc<str>) -> Arc<Ring> {
        self.rings.lock().entry(plugin.clone()).or_default().clone()
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct Line {
    /// Grows by one from line to line of a plugin, from 1 at the start of the server.
    pub sequence: u64,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// `stdout`, `stderr`, or a level of `wasi:logging` such as `warn`; `host` for what the host says of the plugin.
    pub source: &'static str,
    /// The line, without its end. Control characters and those that turn the order of text around are escaped.
    pub text: String,
}

/// Lines of a plugin that somebody has not seen yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LogLines)]
pub struct Lines {
    /// In order.
    pub lines: Vec<Line>,
    /// Lines between those seen and these that are not kept any more.
    pub missed: u64,
    /// Ask for lines after this to go on.
    pub last: u64,
}

/// The last lines of one plugin.
pub(crate) struct Ring {
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    last: u64,
    bytes: usize,
    lines: VecDeque<Line>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { kept: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl Ring {
    /// Keeps a line, and lets go of the oldest ones where it takes their room.
    pub(crate) fn push(&self, source: &'static str, text: &str) {
        let text = escape(text);
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let time_ms = u64::try_from(time_ms).unwrap_or(u64::MAX);
        let mut kept = self.kept.lock();
        kept.last += 1;
        kept.bytes += text.len();
        let sequence = kept.last;
        kept.lines.push_back(Line { sequence, time_ms, source, text });
        while kept.lines.len() > LOG_KEPT_LINES || kept.bytes > LOG_KEPT_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.text.len();
        }
        // Under the lock, so that it only grows.
        self.last.send_replace(sequence);
    }

    /// The lines after one, at once.
    pub(crate) fn after(&self, sequence: u64) -> Lines {
        let kept = self.kept.lock();
        // Who has seen more than there is saw it before the server started again.
        let sequence = if sequence > kept.last { 0 } else { sequence };
        let lines: Vec<Line> = kept.lines.iter().filter(|line| line.sequence > sequence).cloned().collect();
        let next = sequence.saturating_add(1);
        let missed = lines.first().map_or(0, |first| first.sequence.saturating_sub(next));
        Lines { lines, missed, last: kept.last }
    }

    /// The lines after one, once there are any or `wait` is over.
    pub(crate) async fn wait_after(&self, sequence: u64, wait: Duration) -> Lines {
        let mut last = self.last.subscribe();
        let _ = tokio::time::timeout(wait, last.wait_for(|last| *last > sequence)).await;
        self.after(sequence)
    }
}

/// Text that does nothing to a terminal.
fn escape(text: &str) -> String {
    let turns = |letter: char| matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter != '\t' && (letter.is_control() || turns(letter)) {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_who_comes_late_is_told() {
        let ring = Ring::default();
        for number in 1..=LOG_KEPT_LINES + 10 {
            ring.push("stdout", &number.to_string());
        }
        let all = ring.after(0);
        assert_eq!((all.lines.len(), all.missed), (LOG_KEPT_LINES, 10));
        assert_eq!((all.lines[0].text.as_str(), all.last), ("11", LOG_KEPT_LINES as u64 + 10));
        let rest = ring.after(all.last - 1);
        assert_eq!((rest.lines.len(), rest.missed), (1, 0));
        assert!(ring.after(all.last).lines.is_empty());
        assert_eq!(ring.after(all.last + 1).lines.len(), LOG_KEPT_LINES);
    }

    #[test]
    fn long_lines_leave_room_for_fewer() {
        let ring = Ring::default();
        for _ in 0..100 {
            ring.push("stdout", &"\u{1b}".repeat(super::super::limits::LOG_LINE_BYTES));
        }
        let kept: usize = ring.after(0).lines.iter().map(|line| line.text.len()).sum();
        assert!(kept <= LOG_KEPT_BYTES, "{kept} bytes are kept");
    }

    #[test]
    fn a_line_cannot_command_the_terminal() {
        let ring = Ring::default();
        ring.push("stderr", "\u{1b}[2Jgone\r\u{7}\tgröße \u{202e}🚧");
        assert_eq!(ring.after(0).lines[0].text, "\\u{1b}[2Jgone\\r\\u{7}\tgröße \\u{202e}🚧");
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_next_line() {
        let ring = Arc::new(Ring::default());
        let waiting = tokio::spawn({
            let ring = ring.clone();
            async move { ring.wait_after(0, Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        ring.push("stdout", "news");
        assert_eq!(waiting.await.unwrap().lines[0].text, "news");
        assert!(ring.wait_after(1, Duration::ZERO).await.lines.is_empty());
    }
}
