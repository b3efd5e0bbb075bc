//! The elements of a JSON array as it arrives: the form of a stream where the client did not ask for events.

use super::{limits::LINE_BYTES, lines::Piece};

/// Splits an array into its elements, as far as these are objects or arrays.
#[derive(Default)]
pub(super) struct Elements {
    /// Open brackets; the array's own is one of them.
    depth: usize,
    in_string: bool,
    escaped: bool,
    begun: Vec<u8>,
    /// The present element is over the limit and not kept.
    is_long: bool,
}

impl Elements {
    /// Gives `take` what has come with the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.string(byte);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if self.depth == 1 {
                        from = at;
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 1 {
                        self.keep(bytes.get(from..=at).unwrap_or_default(), &mut take);
                        self.close(&mut take);
                    }
                }
                _ => {}
            }
        }
        if self.depth > 1 {
            self.keep(bytes.get(from..).unwrap_or_default(), &mut take);
        }
    }

    fn string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    fn keep(&mut self, bytes: &[u8], take: &mut impl FnMut(Piece<'_>)) {
        if self.is_long {
            take(Piece::OfLong { part: bytes, is_first: false });
            return;
        }
        self.begun.extend_from_slice(bytes);
        if self.begun.len() > LINE_BYTES {
            self.is_long = true;
            take(Piece::OfLong { part: &std::mem::take(&mut self.begun), is_first: true });
        }
    }

    fn close(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        if !std::mem::take(&mut self.is_long) {
            take(Piece::Whole(&self.begun));
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARRAY: &str = " [{\"a\":\"]}\\\"[\",\"b\":[1,{}]}\r\n, {\"ü\":2},[3] , 4, {} ]\n";

    fn elements(text: &[u8], cuts: &[usize]) -> Vec<String> {
        let (mut elements, mut found, mut start) = (Elements::default(), Vec::new(), 0);
        for &cut in cuts.iter().chain([&text.len()]) {
            elements.feed(&text[start..cut], |piece| match piece {
                Piece::Whole(element) => found.push(String::from_utf8_lossy(element).into_owned()),
                Piece::OfLong { part, .. } => found.push(format!("{} bytes", part.len())),
            });
            start = cut;
        }
        found
    }

    proptest! {
        #[test]
        fn elements_are_found_however_the_array_is_split(mut cuts in prop::collection::vec(0..ARRAY.len(), 0..40)) {
            cuts.sort_unstable();
            let expected = ["{\"a\":\"]}\\\"[\",\"b\":[1,{}]}", "{\"ü\":2}", "[3]", "{}"];
            prop_assert_eq!(elements(ARRAY.as_bytes(), &cuts), expected);
        }

        #[test]
        fn no_text_is_too_strange_to_be_split(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            elements(&bytes, &[]);
        }
    }

    #[test]
    fn a_long_element_comes_in_parts_and_the_next_one_whole() {
        let long = "x".repeat(LINE_BYTES);
        let text = format!("[{{\"a\":\"{long}\"}},{{\"b\":1}}]");
        let cut = LINE_BYTES / 2;
        let found = elements(text.as_bytes(), &[cut, 2 * cut, 2 * cut + 8]);
        assert_eq!(
            found,
            [format!("{} bytes", LINE_BYTES + 7), "1 bytes".to_owned(), "{\"b\":1}".to_owned()]
        );
    }
}
