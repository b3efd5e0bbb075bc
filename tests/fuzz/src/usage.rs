//! Answers of every dialect. The first byte says what is read, the rest is the answer; in it 0xff, which no text has, is a
//! place to split it, and 0xfe repeats the byte behind it up to nearly the length from which on an event is not kept.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use tollgate::{
    fuzzing::{Answer, ESTIMATE_MAX, LINE_BYTES, Reader, Told, read_error, read_listing},
    gateway::Dialect,
};

const ANSWERS: [Answer; 5] =
    [Answer::Events, Answer::Written, Answer::Unwritten, Answer::Free, Answer::Error];

/// Places to split an answer; more only take longer.
const CUTS: usize = 64;

/// Length up to which an answer is filled.
const FILLED_BYTES: usize = LINE_BYTES - 16;

/// Longest answer that is also read byte by byte.
const SHORT_BYTES: usize = 2 * 1024;

/// What an answer used is read alike in pieces and whole, in gzip too; what is no gzip is survived.
pub fn check(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    // From '0' on, so that a text shows what it is.
    let first = usize::from(first.wrapping_sub(b'0'));
    let dialect = Dialect::ALL[first % 3];
    let answer = ANSWERS[first / 3 % 5];
    let (text, cuts) = expand(input);
    let whole = read(dialect, answer, false, &text, &[]);
    assert_eq!(read(dialect, answer, false, &text, &cuts), whole);
    if text.len() <= SHORT_BYTES {
        let everywhere: Vec<usize> = (1..text.len()).collect();
        assert_eq!(read(dialect, answer, false, &text, &everywhere), whole);
    }
    assert!(whole.0.iter().all(|tokens| *tokens <= ESTIMATE_MAX));
    if matches!(answer, Answer::Error) {
        read_error(dialect, &text);
        read_listing(dialect, &text);
        return;
    }
    let zipped = gzip(&text);
    let scaled: Vec<usize> = cuts.iter().map(|cut| cut * zipped.len() / text.len().max(1)).collect();
    assert_eq!(read(dialect, answer, true, &zipped, &scaled), whole);
    // Its head makes the rest count as gzip.
    let broken = [&zipped[..10.min(zipped.len())], &text].concat();
    read(dialect, answer, true, &broken, &cuts);
}

fn expand(input: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut text, mut cuts) = (Vec::new(), Vec::new());
    let mut bytes = input.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0xff if cuts.len() < CUTS => cuts.push(text.len()),
            0xfe if text.len() < FILLED_BYTES => text.resize(FILLED_BYTES, *bytes.next().unwrap_or(&b' ')),
            _ => text.push(byte),
        }
    }
    (text, cuts)
}

fn read(dialect: Dialect, answer: Answer, gzip: bool, text: &[u8], cuts: &[usize]) -> Told {
    let mut reader = Reader::new(dialect, answer, gzip);
    let mut start = 0;
    for &cut in cuts.iter().chain([&text.len()]) {
        reader.feed(&text[start..cut]);
        start = cut;
    }
    // A prompt that no report is taken for.
    reader.told(12_345)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}
