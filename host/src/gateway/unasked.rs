//! Keeps from a client the event that tells what was used, if the gateway asked for that and the client did not. All other
//! bytes pass as they come, but for the end of what has come while it may be such an event.
//!
//! An event whose stream breaks off within it is not passed on; the last one of a stream that ends as it should is, even
//! if no line ends it.

use super::{dialect::Dialect, limits::HELD_BYTES, lines::data};

/// Looks through one stream.
pub(super) struct Unasked {
    dialect: Dialect,
    /// Lines of the present event that are not its data, in front of it.
    fields: Vec<u8>,
    /// What has come of the present line.
    begun: Vec<u8>,
    /// The present line is too long to be held, and passes.
    is_long: bool,
    /// What was done with the last line.
    last: Fate,
    /// It ended in CR, so that LF would be its end too.
    is_after_cr: bool,
    /// The present event's data was dropped, and what is left of it goes the same way.
    is_dropping: bool,
    /// The present event has data that has passed.
    has_passed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Held,
    Dropped,
}

impl Unasked {
    pub(super) fn new(dialect: Dialect) -> Unasked {
        Unasked {
            dialect,
            fields: Vec::new(),
            begun: Vec::new(),
            is_long: false,
            last: Fate::Passed,
            is_after_cr: false,
            is_dropping: false,
            has_passed: false,
        }
    }

    /// Takes the next bytes and gives `passed` what may pass.
    pub(super) fn feed(&mut self, mut bytes: &[u8], passed: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end.saturating_add(1));
            bytes = rest;
            self.go_on(line, passed);
            self.end_line(line.ends_with(b"\r"), passed);
        }
        self.go_on(bytes, passed);
    }

    /// Gives `passed` what is held at the end of a stream.
    pub(super) fn finish(&mut self, passed: &mut Vec<u8>) {
        if data(&self.begun).is_some_and(|data| self.dialect.api().is_only_usage(data)) {
            self.begun.clear();
            self.fields.clear();
        }
        self.pass(passed);
    }

    /// Takes the next bytes of the present line. Its length alone makes it a long one, wherever it is split.
    fn go_on(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        self.begun.extend_from_slice(bytes);
        self.is_long |= self.fields.len().saturating_add(self.begun.len()) > HELD_BYTES;
        if self.is_long {
            self.pass(passed);
        }
    }

    fn end_line(&mut self, is_cr: bool, passed: &mut Vec<u8>) {
        let is_of_last = self.is_after_cr && self.begun == b"\n";
        self.is_after_cr = is_cr;
        if !is_of_last {
            self.last = if std::mem::take(&mut self.is_long) { self.long() } else { self.fate() };
        }
        match self.last {
            Fate::Passed => self.pass(passed),
            Fate::Held => self.fields.append(&mut self.begun),
            Fate::Dropped => {
                self.fields.clear();
                self.begun.clear();
            }
        }
    }

    fn long(&mut self) -> Fate {
        (self.is_dropping, self.has_passed) = (false, true);
        Fate::Passed
    }

    /// What becomes of the present line, which has ended.
    fn fate(&mut self) -> Fate {
        let line = self.begun.split_last().map_or(&[][..], |(_, line)| line);
        if line.is_empty() {
            let is_dropped = std::mem::take(&mut self.is_dropping);
            let has_passed = std::mem::take(&mut self.has_passed);
            return if is_dropped && !has_passed { Fate::Dropped } else { Fate::Passed };
        }
        if let Some(data) = data(line) {
            self.is_dropping = self.dialect.api().is_only_usage(data);
            self.has_passed |= !self.is_dropping;
        }
        match line {
            _ if self.is_dropping => Fate::Dropped,
            // Comments keep a connection alive, and must not wait for what follows.
            [b':', ..] if self.fields.is_empty() => Fate::Passed,
            line if data(line).is_none() => Fate::Held,
            _ => Fate::Passed,
        }
    }

    fn pass(&mut self, passed: &mut Vec<u8>) {
        passed.append(&mut self.fields);
        passed.append(&mut self.begun);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stream with marks around what is not to pass.
    const STREAM: &str = ": a comment\n\nevent: message\nid: 1\ndata: {\"choices\":[{\"delta\":{\"content\":\"hä\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":null}\n\nretry: 5\n\n\
        [event: message\ndata:{\"choices\":[],\"usage\":{\"prompt_tokens\":11}}\nid: 7\n\n]\
        : another\ndata: [DONE]\n\n";

    fn passed(pieces: &[&[u8]]) -> String {
        let (mut unasked, mut passed) = (Unasked::new(Dialect::OpenAi), Vec::new());
        pieces.iter().for_each(|piece| unasked.feed(piece, &mut passed));
        unasked.finish(&mut passed);
        String::from_utf8(passed).unwrap()
    }

    /// What is sent, and what is to pass of it, with such ends of lines.
    fn stream(end: &str) -> (String, String) {
        let text =
            STREAM.replace("[DONE]", "<DONE>").replace("[]", "<>").replace("[{", "<{").replace("}]", "}>");
        let (before, rest) = text.split_once('[').unwrap();
        let (dropped, after) = rest.split_once(']').unwrap();
        let written = |text: String| text.replace('<', "[").replace('>', "]").replace('\n', end);
        (written(format!("{before}{dropped}{after}")), written(format!("{before}{after}")))
    }

    #[test]
    fn the_event_is_dropped_wherever_it_is_split_and_however_its_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let (sent, expected) = stream(end);
            assert_eq!(passed(&[sent.as_bytes()]), expected, "{end:?}");
            for cut in 0..=sent.len() {
                let (first, second) = sent.as_bytes().split_at(cut);
                assert_eq!(passed(&[first, second]), expected, "{end:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = sent.as_bytes().chunks(1).collect();
            assert_eq!(passed(&bytes), expected, "{end:?} byte by byte");
        }
    }

    #[test]
    fn what_is_no_such_event_passes_and_so_does_one_that_is_too_long() {
        let usage = r#"data: {"choices":[],"usage":{}}"#;
        let long = "7".repeat(HELD_BYTES);
        let filled = |bytes: usize| format!("{usage}{}\n\n", " ".repeat(bytes - usage.len() - 1));
        for (sent, expected) in [
            (filled(HELD_BYTES), ""),
            (filled(HELD_BYTES + 1), &*filled(HELD_BYTES + 1)),
            (format!("id: {long}\n{usage}\n\n"), &*format!("id: {long}\n\n")),
            ("data: [DONE]".to_owned(), "same"),
            ("event: a".to_owned(), "same"),
            ("event: a\nid: 1\n\n".to_owned(), "same"),
            (usage.to_owned(), ""),
            (format!("event: a\n{usage}"), ""),
            // Upstreams that leave out the blank lines.
            (format!("data: a\n{usage}\ndata: b\n\n"), "data: a\ndata: b\n\n"),
            (format!("data: a\n{usage}\n\n"), "data: a\n\n"),
            (format!("{usage}\ndata: b\n\n"), "data: b\n\n"),
        ] {
            let expected = if expected == "same" { &sent } else { expected };
            for piece in [sent.len(), sent.len() - 1, 1000, 7] {
                let pieces: Vec<&[u8]> = sent.as_bytes().chunks(piece).collect();
                assert!(passed(&pieces) == expected, "{:.60} in pieces of {piece}", sent);
            }
        }
    }

    #[test]
    fn nothing_waits_but_what_may_be_such_an_event() {
        let (mut unasked, mut passed) = (Unasked::new(Dialect::OpenAi), Vec::new());
        for (sent, through) in [
            (": ping\n", ": ping\n"),
            ("\n", "\n"),
            ("data: {\"choices\":[{", ""),
            ("}]}\n", "data: {\"choices\":[{}]}\n"),
            ("\n", "\n"),
            ("event: a\r", ""),
            ("\n", ""),
            ("data: b\r", "event: a\r\ndata: b\r"),
            ("\n\r\n", "\n\r\n"),
        ] {
            unasked.feed(sent.as_bytes(), &mut passed);
            assert_eq!(String::from_utf8(std::mem::take(&mut passed)).unwrap(), through, "{sent:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_without_such_an_event_passes_whatever_it_is_and_however_it_is_split(
            bytes in prop::collection::vec(prop::sample::select(b"data: {}\"[]\r\n".to_vec()), 0..200),
            pieces in 1_usize..20,
        ) {
            let (mut unasked, mut passed) = (Unasked::new(Dialect::OpenAi), Vec::new());
            bytes.chunks(pieces).for_each(|piece| unasked.feed(piece, &mut passed));
            unasked.finish(&mut passed);
            prop_assert_eq!(passed, bytes);
        }
    }
}
