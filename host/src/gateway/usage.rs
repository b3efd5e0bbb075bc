//! Reads what a request used from its answer as it passes, whatever pieces it comes in.
//!
//! An upstream reports usage in a plain answer and, if asked to, at the end of a stream. Where it does not, or the answer
//! was cut, what was seen is counted: the prompt as estimated, the answer by the bytes of its text. The request itself is
//! not changed to ask for usage, so that client and upstream exchange exactly what they would without a gateway.

use super::{
    dialect::Dialect,
    limits::{BYTES_PER_TOKEN, ERROR_BYTES, ESTIMATE_MAX, LINE_BYTES, USAGE_BYTES},
};

/// What an answer told so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Input and output tokens as the upstream counted them.
    pub(super) reported: Option<(u64, u64)>,
    /// Bytes of text that the model wrote.
    pub(super) text_bytes: u64,
    /// An error that the upstream reported in mid-stream.
    pub(super) failure: Option<String>,
    /// The last event has passed.
    pub(super) done: bool,
}

impl Seen {
    /// Takes the upstream's own count; the last one holds.
    pub(super) fn report(&mut self, input: u64, output: u64) {
        self.reported = Some((input.min(ESTIMATE_MAX), output.min(ESTIMATE_MAX)));
    }
}

/// Reads one answer.
pub(super) struct UsageReader {
    dialect: Dialect,
    form: Form,
    seen: Seen,
}

enum Form {
    Events(Lines),
    Json {
        scanner: Scanner,
        written: bool,
    },
    /// An error answer, which uses nothing: its beginning, for the log.
    Error(Vec<u8>),
}

impl UsageReader {
    /// Reads a stream of events.
    pub(super) fn events(dialect: Dialect) -> UsageReader {
        UsageReader { dialect, form: Form::Events(Lines::default()), seen: Seen::default() }
    }

    /// Reads a plain answer; one that is not `written` by a model, such as embeddings, has no output to count.
    pub(super) fn json(dialect: Dialect, written: bool) -> UsageReader {
        UsageReader {
            dialect,
            form: Form::Json { scanner: Scanner::default(), written },
            seen: Seen::default(),
        }
    }

    /// Reads an error answer, which uses nothing.
    pub(super) fn error(dialect: Dialect) -> UsageReader {
        UsageReader { dialect, form: Form::Error(Vec::new()), seen: Seen::default() }
    }

    /// Reads the next piece.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let (dialect, seen) = (self.dialect, &mut self.seen);
        match &mut self.form {
            Form::Events(lines) => lines.feed(bytes, |line| {
                if let Some(data) = line.strip_prefix(b"data:") {
                    dialect.read_event(data.trim_ascii_start(), seen);
                }
            }),
            Form::Json { scanner, written } => {
                // Upwards: the frame around the text counts as well.
                seen.text_bytes += if *written { bytes.len() as u64 } else { 0 };
                scanner.feed(bytes, |usage| dialect.read_usage(usage, seen));
            }
            Form::Error(begun) => {
                let room = ERROR_BYTES.saturating_sub(begun.len());
                begun.extend(bytes.iter().take(room));
            }
        }
    }

    /// Input and output tokens so far, given the estimate of the prompt.
    pub(super) fn tokens(&self, prompt: u64) -> (u64, u64) {
        match (&self.form, self.seen.reported) {
            (Form::Error(_), _) => (0, 0),
            (_, Some(reported)) => reported,
            (_, None) => (prompt, self.seen.text_bytes.div_ceil(BYTES_PER_TOKEN).min(ESTIMATE_MAX)),
        }
    }

    /// The error that the upstream reported, as its answer or in the middle of one.
    pub(super) fn failure(&self) -> Option<String> {
        match &self.form {
            Form::Error(begun) => self.dialect.error_message(begun),
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

/// Finds the top-level `usage` of a JSON object without keeping the rest, which may be megabytes of embeddings.
#[derive(Default)]
struct Scanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Past the colon of a top-level entry.
    in_value: bool,
    /// The top-level key, as far as needed to know that it is another one.
    key: Vec<u8>,
    usage: Option<Vec<u8>>,
}

const USAGE: &[u8] = b"usage";

impl Scanner {
    fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        for &byte in bytes {
            if self.in_string {
                self.string(byte);
                continue;
            }
            match byte {
                b'"' => self.open_string(),
                b'{' | b'[' => {
                    self.depth += 1;
                    self.keep(byte);
                }
                b'}' | b']' if self.depth > 1 => {
                    self.depth -= 1;
                    self.keep(byte);
                }
                b':' if self.depth == 1 => self.open_value(),
                b',' | b'}' if self.depth == 1 => {
                    self.in_value = false;
                    if let Some(usage) = self.usage.take() {
                        take(&usage);
                    }
                }
                _ => self.keep(byte),
            }
        }
    }

    fn open_string(&mut self) {
        self.in_string = true;
        if self.depth == 1 && !self.in_value {
            self.key.clear();
        }
        self.keep(b'"');
    }

    fn open_value(&mut self) {
        self.in_value = true;
        if self.key == USAGE {
            self.usage = Some(Vec::new());
        }
    }

    fn string(&mut self, byte: u8) {
        self.keep(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth == 1 && !self.in_value && self.key.len() <= USAGE.len() => self.key.push(byte),
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if let Some(usage) = &mut self.usage
            && usage.len() < USAGE_BYTES
        {
            usage.push(byte);
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
        UsageReader::json(Dialect::OpenAi, true)
    }

    #[test]
    fn usage_is_found_wherever_the_answer_is_split_in_two() {
        for cut in 0..=STREAM.len() {
            let reader = fed(events(), STREAM.as_bytes(), &[cut]);
            assert_eq!(reader.tokens(5), (11, 2), "{cut}");
            assert_eq!(reader.seen.text_bytes, 6, "{cut}");
        }
        for cut in 0..=PLAIN.len() {
            assert_eq!(fed(json(), PLAIN.as_bytes(), &[cut]).tokens(5), (7, 9), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn usage_is_found_however_the_answer_is_split(mut cuts in prop::collection::vec(0..STREAM.len(), 0..40)) {
            cuts.sort_unstable();
            prop_assert_eq!(fed(events(), STREAM.as_bytes(), &cuts).tokens(5), (11, 2));
            cuts.retain(|cut| *cut <= PLAIN.len());
            prop_assert_eq!(fed(json(), PLAIN.as_bytes(), &cuts).tokens(5), (7, 9));
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
        assert_eq!(fed(events(), &STREAM.as_bytes()[..cut], &[]).tokens(5), (5, 2));
        assert_eq!(events().tokens(5), (5, 0));
    }

    #[test]
    fn an_answer_without_usage_counts_its_bytes_and_embeddings_only_the_prompt() {
        let body = br#"{"data":[]}"#;
        assert_eq!(fed(json(), body, &[]).tokens(5), (5, 4));
        assert_eq!(fed(UsageReader::json(Dialect::OpenAi, false), body, &[]).tokens(5), (5, 0));
        assert_eq!(fed(UsageReader::error(Dialect::OpenAi), body, &[]).tokens(5), (0, 0));
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
        assert_eq!(reader.tokens(1), (3, 4));
    }
}
