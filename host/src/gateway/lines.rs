//! The lines of a stream of events as it arrives.

use super::limits::LINE_BYTES;

/// What has come of a stream.
pub(super) enum Piece<'a> {
    /// The data of an event as a whole.
    Whole(&'a [u8]),
    /// A part of one that is too long to be kept.
    OfLong {
        /// The next bytes; at first all that was kept.
        part: &'a [u8],
        /// Whether it is the first part.
        is_first: bool,
    },
}

/// Splits a stream of events into its lines of data. JSON has no bare line ends, so each of them stands for itself.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    long: Long,
}

/// The present line, if it is too long to be kept.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Long {
    #[default]
    No,
    Data,
    Other,
}

impl Lines {
    /// Gives `take` what has come with the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.begun.is_empty() && self.long == Long::No && line.len() <= LINE_BYTES {
                whole(line, &mut take);
                continue;
            }
            self.go_on(line, &mut take);
            if self.long == Long::No {
                whole(&self.begun, &mut take);
            }
            self.begun.clear();
            self.long = Long::No;
        }
        self.go_on(bytes, &mut take);
    }

    /// Takes the next bytes of the present line. Its length alone makes it a long one, wherever it is split.
    fn go_on(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Piece<'_>)) {
        if self.long == Long::No {
            let room = LINE_BYTES.saturating_sub(self.begun.len());
            let (kept, rest) = bytes.split_at(room.min(bytes.len()));
            self.begun.extend_from_slice(kept);
            if rest.is_empty() {
                return;
            }
            self.overflow(take);
            bytes = rest;
        }
        if self.long == Long::Data {
            take(Piece::OfLong { part: bytes, is_first: false });
        }
    }

    fn overflow(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        let begun = std::mem::take(&mut self.begun);
        self.long = match data(&begun) {
            Some(part) => {
                take(Piece::OfLong { part, is_first: true });
                Long::Data
            }
            None => Long::Other,
        };
    }
}

fn whole(line: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    if let Some(data) = data(line) {
        take(Piece::Whole(data));
    }
}

/// What a line of an event has as data.
pub(super) fn data(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_of_data_comes_in_parts_and_any_other_not_at_all() {
        let half = "x".repeat(LINE_BYTES / 2);
        let text = format!("data: {half}{half}{half}\n: {half}{half}{half}\ndata: next\n");
        let (mut lines, mut found, mut kept) = (Lines::default(), Vec::new(), 0);
        for piece in text.as_bytes().chunks(LINE_BYTES / 16) {
            lines.feed(piece, |piece| {
                found.push(match piece {
                    Piece::Whole(data) => (data.len(), None),
                    Piece::OfLong { part, is_first } => (part.len(), Some(is_first)),
                });
            });
            kept = kept.max(lines.begun.len());
        }
        assert!(kept <= LINE_BYTES);
        let (long, whole): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, first)| first.is_some());
        assert_eq!(whole, [(4, None)]);
        assert_eq!(long.iter().map(|(length, _)| length).sum::<usize>(), 3 * half.len());
        assert!(long.iter().enumerate().all(|(index, (_, first))| *first == Some(index == 0)));
    }

    #[test]
    fn a_line_is_long_by_its_length_wherever_it_is_split() {
        for (length, is_long) in [(LINE_BYTES, false), (LINE_BYTES + 1, true)] {
            let line = format!("data:{}\n", "x".repeat(length - 5));
            for piece in [line.len(), line.len() - 1, line.len() - 2, LINE_BYTES / 2] {
                let (mut lines, mut bytes, mut in_parts) = (Lines::default(), 0, false);
                for piece in line.as_bytes().chunks(piece) {
                    lines.feed(piece, |piece| {
                        let (Piece::Whole(data) | Piece::OfLong { part: data, .. }) = piece;
                        bytes += data.len();
                        in_parts |= matches!(piece, Piece::OfLong { .. });
                    });
                }
                assert_eq!((bytes, in_parts), (length - 5, is_long), "{length} in pieces of {piece}");
            }
        }
    }
}
