//! Reads what a request used from its answer as it passes, whatever pieces it comes in.
//!
//! An upstream reports usage in a plain answer and, if asked to, at the end of a stream. Where it does not, or the answer
//! was cut, what was seen is counted: the prompt as estimated, the answer by the bytes of its text. The request itself is
//! not changed to ask for usage, so that client and upstream exchange exactly what they would without a gateway.

use super::{
    dialect::{Dialect, Uses},
    elements::{Elements, Piece},
    limits::{BYTES_PER_TOKEN, ENTRY_BYTES, ERROR_BYTES, ESTIMATE_MAX, LINE_BYTES},
};

/// Tokens that a request used. The parts are contained in the sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    /// The whole prompt, what came from or went into a cache included.
    pub(super) input: u64,
    /// The whole answer, what the model thought included.
    pub(super) output: u64,
    /// Of the prompt: read from a cache.
    pub(super) cache_read: u64,
    /// Of the prompt: written to a cache.
    pub(super) cache_write: u64,
    /// Of the answer: thought.
    pub(super) reasoning: u64,
}

/// Tokens as the upstream counted them; what it has not told yet is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// As [`Tokens::input`].
    pub(super) input: Option<u64>,
    /// As [`Tokens::output`].
    pub(super) output: Option<u64>,
    /// As [`Tokens::cache_read`].
    pub(super) cache_read: u64,
    /// As [`Tokens::cache_write`].
    pub(super) cache_write: u64,
    /// As [`Tokens::reasoning`].
    pub(super) reasoning: u64,
}

/// What an answer told so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What the upstream counted; later reports take the place of earlier ones.
    pub(super) reported: Reported,
    /// Bytes of text that the model wrote.
    pub(super) text_bytes: u64,
    /// An error that the upstream reported in mid-stream.
    pub(super) failure: Option<String>,
    /// The last event has passed.
    pub(super) done: bool,
}

/// Reads one answer.
pub(super) struct UsageReader {
    dialect: Dialect,
    form: Form,
    seen: Seen,
}

enum Form {
    Events(Lines),
    /// An array whose elements are what events are elsewhere.
    Elements(Elements, Scanner),
    Json {
        scanner: Scanner,
        written: bool,
    },
    /// An answer that uses nothing and tells nothing.
    Free,
    /// An error answer, which uses nothing: its beginning, for the log.
    Error(Vec<u8>),
}

impl UsageReader {
    /// Reads a stream of events.
    pub(super) fn events(dialect: Dialect) -> UsageReader {
        UsageReader::of(dialect, Form::Events(Lines::default()))
    }

    /// Reads a plain answer.
    pub(super) fn json(dialect: Dialect, uses: Uses) -> UsageReader {
        let form = match uses {
            Uses::Text => Form::Json { scanner: Scanner::default(), written: true },
            Uses::Prompt => Form::Json { scanner: Scanner::default(), written: false },
            Uses::Nothing => Form::Free,
        };
        UsageReader::of(dialect, form)
    }

    /// Reads an error answer, which uses nothing.
    pub(super) fn error(dialect: Dialect) -> UsageReader {
        UsageReader::of(dialect, Form::Error(Vec::new()))
    }

    fn of(dialect: Dialect, form: Form) -> UsageReader {
        UsageReader { dialect, form, seen: Seen::default() }
    }

    /// Reads the next piece.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if let Form::Json { scanner, written: true } = &self.form
            && scanner.is_unused()
            && bytes.trim_ascii_start().starts_with(b"[")
        {
            self.form = Form::Elements(Elements::default(), Scanner::default());
        }
        let (api, seen) = (self.dialect.api(), &mut self.seen);
        match &mut self.form {
            Form::Elements(elements, scanner) => elements.feed(bytes, |piece| match piece {
                Piece::Element(element) => api.read_event(element, seen),
                Piece::OfLong(part) => {
                    // Upwards, as a plain answer.
                    seen.text_bytes += part.len() as u64;
                    scanner.feed(api.entries(), part, |name, value| api.read_entry(name, value, seen));
                }
            }),
            Form::Events(lines) => lines.feed(bytes, |line| {
                if let Some(data) = line.strip_prefix(b"data:") {
                    api.read_event(data.trim_ascii_start(), seen);
                }
            }),
            Form::Json { scanner, written } => {
                // Upwards: the frame around the text counts as well.
                seen.text_bytes += if *written { bytes.len() as u64 } else { 0 };
                scanner.feed(api.entries(), bytes, |name, value| api.read_entry(name, value, seen));
            }
            Form::Free => {}
            Form::Error(begun) => {
                let room = ERROR_BYTES.saturating_sub(begun.len());
                begun.extend(bytes.iter().take(room));
            }
        }
    }

    /// What was used so far, given the estimate of the prompt.
    pub(super) fn tokens(&self, prompt: u64) -> Tokens {
        if matches!(self.form, Form::Error(_) | Form::Free) {
            return Tokens::default();
        }
        let reported = &self.seen.reported;
        let written = || self.seen.text_bytes.div_ceil(BYTES_PER_TOKEN);
        Tokens {
            input: reported.input.unwrap_or(prompt).min(ESTIMATE_MAX),
            output: reported.output.unwrap_or_else(written).min(ESTIMATE_MAX),
            cache_read: reported.cache_read.min(ESTIMATE_MAX),
            cache_write: reported.cache_write.min(ESTIMATE_MAX),
            reasoning: reported.reasoning.min(ESTIMATE_MAX),
        }
    }

    /// The error that the upstream reported, as its answer or in the middle of one.
    pub(super) fn failure(&self) -> Option<String> {
        match &self.form {
            Form::Error(begun) => self.dialect.api().error_message(begun),
            _ => self.seen.failure.clone(),
        }
    }

    /// Whether the last event of a stream has passed, so that nothing is missing but the end of the body.
    pub(super) fn is_done(&self) -> bool {
        self.seen.done
    }
}

/// Splits a stream of events into lines. JSON has no bare line ends, so each line of data stands for itself.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    /// The present line is over the limit and passed over.
    skipping: bool,
}

impl Lines {
    fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.skipping {
                self.skipping = false;
            } else if self.begun.is_empty() {
                take(line);
            } else {
                self.begun.extend_from_slice(line);
                take(&self.begun);
            }
            self.begun.clear();
        }
        if self.begun.len() + bytes.len() > LINE_BYTES {
            self.skipping = true;
            self.begun = Vec::new();
        } else if !self.skipping {
            self.begun.extend_from_slice(bytes);
        }
    }
}

/// Finds top-level entries of a JSON object, or of the objects in an array, without keeping the rest, which may be
/// megabytes of embeddings.
#[derive(Default)]
struct Scanner {
    depth: u32,
    /// The depth of the entries: 1, or 2 in the elements of an array.
    level: u32,
    in_string: bool,
    escaped: bool,
    /// Past the colon of such an entry.
    in_value: bool,
    /// The entry's name, as far as needed to know it.
    name: Vec<u8>,
    wanted: Option<(&'static str, Vec<u8>)>,
}

/// Longest name of an entry that is kept, longer than any that is wanted.
const NAME_BYTES: usize = 32;

impl Scanner {
    /// Whether nothing but blanks has come.
    fn is_unused(&self) -> bool {
        self.level == 0 && !self.in_string
    }

    /// Gives `take` the name and the text of each entry that is among `names`.
    fn feed(&mut self, names: &[&'static str], bytes: &[u8], mut take: impl FnMut(&str, &[u8])) {
        for &byte in bytes {
            if self.in_string {
                self.string(byte);
                continue;
            }
            match byte {
                b'"' => self.open_string(),
                b'{' | b'[' => {
                    if self.depth == 0 {
                        self.level = if byte == b'[' { 2 } else { 1 };
                    }
                    self.depth += 1;
                    self.keep(byte);
                }
                b':' if self.depth == self.level => self.open_value(names),
                b',' | b'}' | b']' if self.depth <= self.level => {
                    self.close(&mut take);
                    self.depth -= u32::from(byte != b',' && self.depth > 0);
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    self.keep(byte);
                }
                _ => self.keep(byte),
            }
        }
    }

    fn open_string(&mut self) {
        self.in_string = true;
        if self.depth == self.level && !self.in_value {
            self.name.clear();
        }
        self.keep(b'"');
    }

    fn open_value(&mut self, names: &[&'static str]) {
        self.in_value = true;
        let name = names.iter().find(|name| name.as_bytes() == self.name);
        self.wanted = name.map(|name| (*name, Vec::new()));
    }

    fn close(&mut self, take: &mut impl FnMut(&str, &[u8])) {
        self.in_value = false;
        if let Some((name, value)) = self.wanted.take() {
            take(name, &value);
        }
    }

    fn string(&mut self, byte: u8) {
        self.keep(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth == self.level && !self.in_value && self.name.len() < NAME_BYTES => {
                self.name.push(byte);
            }
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if let Some((_, value)) = &mut self.wanted
            && value.len() < ENTRY_BYTES
        {
            value.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = ": a comment\r\n\r\nevent: message\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"hä\\n\"}}]}\r\n\r\n\
        data:{\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\nid: 7\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

    const PLAIN: &str = r#"{"id":"\"usage\":{","a":{"usage":{"prompt_tokens":1}},"choices":[{"text":"}]{\\"}],
        "usage": {"prompt_tokens":7,"completion_tokens":9,"details":{"x":[1,2]}} , "z":"usage"}"#;

    impl UsageReader {
        /// Input and output, with a prompt of 5 tokens as estimated.
        fn used(&self) -> (u64, u64) {
            let tokens = self.tokens(5);
            (tokens.input, tokens.output)
        }
    }

    fn fed(mut reader: UsageReader, text: &[u8], cuts: &[usize]) -> UsageReader {
        let mut start = 0;
        for &cut in cuts {
            reader.feed(&text[start..cut]);
            start = cut;
        }
        reader.feed(&text[start..]);
        reader
    }

    fn events() -> UsageReader {
        UsageReader::events(Dialect::OpenAi)
    }

    fn json() -> UsageReader {
        UsageReader::json(Dialect::OpenAi, Uses::Text)
    }

    #[test]
    fn usage_is_found_wherever_the_answer_is_split_in_two() {
        for cut in 0..=STREAM.len() {
            let reader = fed(events(), STREAM.as_bytes(), &[cut]);
            assert_eq!(reader.used(), (11, 2), "{cut}");
            assert_eq!(reader.seen.text_bytes, 6, "{cut}");
        }
        for cut in 0..=PLAIN.len() {
            assert_eq!(fed(json(), PLAIN.as_bytes(), &[cut]).used(), (7, 9), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn usage_is_found_however_the_answer_is_split(mut cuts in prop::collection::vec(0..STREAM.len(), 0..40)) {
            cuts.sort_unstable();
            prop_assert_eq!(fed(events(), STREAM.as_bytes(), &cuts).used(), (11, 2));
            cuts.retain(|cut| *cut <= PLAIN.len());
            prop_assert_eq!(fed(json(), PLAIN.as_bytes(), &cuts).used(), (7, 9));
        }

        #[test]
        fn no_answer_is_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            fed(events(), &bytes, &[]);
            fed(json(), &bytes, &[]);
        }
    }

    #[test]
    fn a_cut_stream_counts_the_prompt_and_the_text_seen() {
        let cut = STREAM.find("data:{").unwrap();
        assert_eq!(fed(events(), &STREAM.as_bytes()[..cut], &[]).used(), (5, 2));
        assert_eq!(events().used(), (5, 0));
    }

    #[test]
    fn an_answer_without_usage_counts_its_bytes_and_embeddings_only_the_prompt() {
        let body = br#"{"data":[]}"#;
        assert_eq!(fed(json(), body, &[]).used(), (5, 4));
        assert_eq!(fed(UsageReader::json(Dialect::OpenAi, Uses::Prompt), body, &[]).used(), (5, 0));
        assert_eq!(fed(UsageReader::error(Dialect::OpenAi), body, &[]).used(), (0, 0));
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_is_read() {
        let mut reader = events();
        reader.feed(b"data: {\"usage\":\"");
        for _ in 0..40 {
            reader.feed(&vec![b'x'; LINE_BYTES / 16]);
            let Form::Events(lines) = &reader.form else { panic!("a stream") };
            assert!(lines.begun.len() <= LINE_BYTES);
        }
        reader.feed(b"\"}\n\ndata: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n");
        assert_eq!(reader.used(), (3, 4));
    }
}
