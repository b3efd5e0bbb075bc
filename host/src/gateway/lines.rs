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
            match self.long {
                Long::Data => take(Piece::OfLong { part: line, is_first: false }),
                Long::Other => {}
                Long::No if self.begun.is_empty() => whole(line, &mut take),
                Long::No => {
                    self.begun.extend_from_slice(line);
                    whole(&self.begun, &mut take);
                }
            }
            self.begun.clear();
            self.long = Long::No;
        }
        match self.long {
            Long::Data => take(Piece::OfLong { part: bytes, is_first: false }),
            Long::Other => {}
            Long::No => {
                self.begun.extend_from_slice(bytes);
                if self.begun.len() > LINE_BYTES {
                    self.overflow(&mut take);
                }
            }
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

fn data(line: &[u8]) -> Option<&[u8]> {
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
}
