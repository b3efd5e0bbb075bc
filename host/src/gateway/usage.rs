//! Reads what a request used from its answer as it passes, whatever pieces it comes in.
//!
//! An upstream reports usage in a plain answer and, if asked to, at the end of a stream. Where it does not, or the answer
//! was cut, what was seen is counted: the prompt as estimated, the answer by the bytes of its text, of which what a model
//! thinks unseen is no part. Only an account that says so has requests changed to ask for usage: elsewhere client and
//! upstream exchange exactly what they would without a gateway.

use http::HeaderMap;

use super::{
    coding::{Decoded, Decoder},
    dialect::{Api, Dialect, Uses},
    elements::Elements,
    limits::{BYTES_PER_TOKEN, ERROR_BYTES, ESTIMATE_MAX},
    lines::{Lines, Piece},
    scanner::Scanner,
};

/// Tokens as the upstream counted them.
const REPORTED: &str = "reported";

/// Tokens of which some were counted from what was seen of the answer.
const COUNTED: &str = "counted";

/// The prompt alone, as estimated: nothing of an answer was seen.
pub(super) const ESTIMATED: &str = "estimated";

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
    decoder: Decoder,
    reader: Reader,
}

impl UsageReader {
    /// Reads a stream of events.
    pub(super) fn events(dialect: Dialect) -> UsageReader {
        UsageReader::of(dialect, Form::Events(Lines::default(), Scanner::default()))
    }

    /// Reads a plain answer.
    pub(super) fn json(dialect: Dialect, uses: Uses) -> UsageReader {
        let form = match uses {
            Uses::Text => Form::Blank,
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
        UsageReader { decoder: Decoder::default(), reader: Reader { dialect, form, seen: Seen::default() } }
    }

    /// The same for an answer that may be encoded, as its headers say.
    pub(super) fn decoding(self, headers: &HeaderMap, request_id: &str) -> UsageReader {
        UsageReader { decoder: Decoder::of(headers, request_id), ..self }
    }

    /// Whether the answer comes as it is, not encoded.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.decoder, Decoder::Plain)
    }

    /// Reads the next piece.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let reader = &mut self.reader;
        self.decoder.feed(bytes, |decoded| match decoded {
            Decoded::Plain(bytes) => reader.feed(bytes),
            Decoded::Unreadable(bytes) => reader.guess(bytes),
        });
    }

    /// What was used so far, given the estimate of the prompt.
    pub(super) fn tokens(&self, prompt: u64) -> Tokens {
        self.reader.tokens(prompt)
    }

    /// Where those tokens are from: the upstream's report, the answer's bytes or the estimate; empty if nothing was used.
    pub(super) fn source(&self) -> &'static str {
        self.reader.source()
    }

    /// The error that the upstream reported, as its answer or in the middle of one.
    pub(super) fn failure(&self) -> Option<String> {
        match &self.reader.form {
            Form::Error(begun) => self.reader.dialect.api().error_message(begun),
            _ => self.reader.seen.failure.clone(),
        }
    }

    /// Whether the last event of a stream has passed, so that nothing is missing but the end of the body.
    pub(super) fn is_done(&self) -> bool {
        self.reader.seen.done
    }
}

/// Reads what is not encoded.
struct Reader {
    dialect: Dialect,
    form: Form,
    seen: Seen,
}

/// Where pieces can be too long to be kept, a scanner reads those.
enum Form {
    Events(Lines, Scanner),
    /// An array whose elements are what events are elsewhere.
    Elements(Elements, Scanner),
    Json {
        scanner: Scanner,
        written: bool,
    },
    /// An answer of which nothing but blanks has come: its first character tells whether it is an array.
    Blank,
    /// An answer that uses nothing and tells nothing.
    Free,
    /// An error answer, which uses nothing: its beginning, for the log.
    Error(Vec<u8>),
}

impl Reader {
    fn feed(&mut self, mut bytes: &[u8]) {
        if matches!(self.form, Form::Blank) {
            bytes = bytes.trim_ascii_start();
            self.form = match bytes.first() {
                None => return,
                Some(b'[') => Form::Elements(Elements::default(), Scanner::default()),
                Some(_) => Form::Json { scanner: Scanner::default(), written: true },
            };
        }
        let (api, seen) = (self.dialect.api(), &mut self.seen);
        match &mut self.form {
            Form::Events(lines, scanner) => lines.feed(bytes, |piece| read(api, piece, scanner, seen)),
            Form::Elements(elements, scanner) => {
                elements.feed(bytes, |piece| read(api, piece, scanner, seen));
            }
            Form::Json { scanner, written } => {
                // Upwards: the frame around the text counts as well.
                seen.text_bytes += if *written { bytes.len() as u64 } else { 0 };
                scanner.feed(api.entries(), bytes, |name, value| api.read_entry(name, value, seen));
            }
            Form::Blank | Form::Free => {}
            Form::Error(begun) => {
                let room = ERROR_BYTES.saturating_sub(begun.len());
                begun.extend(bytes.iter().take(room));
            }
        }
    }

    /// Counts what cannot be read as if it were text.
    fn guess(&mut self, bytes: &[u8]) {
        if !matches!(self.form, Form::Json { written: false, .. }) {
            self.seen.text_bytes += bytes.len() as u64;
        }
    }

    fn tokens(&self, prompt: u64) -> Tokens {
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

    fn source(&self) -> &'static str {
        let Reported { input, output, .. } = self.seen.reported;
        match self.form {
            Form::Error(_) | Form::Free => "",
            // Nothing is written, so there is nothing to report of it.
            Form::Json { written: false, .. } if input.is_some() => REPORTED,
            _ if input.is_some() && output.is_some() => REPORTED,
            _ if input.is_none() && output.is_none() && self.seen.text_bytes == 0 => ESTIMATED,
            _ => COUNTED,
        }
    }
}

fn read(api: &dyn Api, piece: Piece<'_>, scanner: &mut Scanner, seen: &mut Seen) {
    match piece {
        Piece::Whole(data) => api.read_event(data, seen),
        Piece::OfLong { part, is_first } => {
            if is_first {
                *scanner = Scanner::deep();
            }
            // Upwards, as for a plain answer.
            seen.text_bytes += part.len() as u64;
            scanner.feed(api.entries(), part, |name, value| api.read_entry(name, value, seen));
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
            assert_eq!(reader.reader.seen.text_bytes, 6, "{cut}");
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
        let begun = fed(events(), &STREAM.as_bytes()[..cut], &[]);
        assert_eq!((begun.used(), begun.source()), ((5, 2), COUNTED));
        assert_eq!((events().used(), events().source()), ((5, 0), ESTIMATED));
        assert_eq!(fed(events(), STREAM.as_bytes(), &[]).source(), REPORTED);
    }

    #[test]
    fn an_answer_without_usage_counts_its_bytes_and_embeddings_only_the_prompt() {
        let body = br#"{"data":[]}"#;
        let embeddings = |body| fed(UsageReader::json(Dialect::OpenAi, Uses::Prompt), body, &[]);
        let error = fed(UsageReader::error(Dialect::OpenAi), body, &[]);
        let used = |reader: UsageReader| (reader.used(), reader.source());
        assert_eq!(used(fed(json(), body, &[])), ((5, 4), COUNTED));
        assert_eq!(used(embeddings(body)), ((5, 0), ESTIMATED));
        assert_eq!(used(embeddings(br#"{"usage":{"prompt_tokens":8}}"#)), ((8, 0), REPORTED));
        assert_eq!(used(error), ((0, 0), ""));
    }
}
