//! Answers that come encoded although the upstream was asked not to: a copy is decoded to be read, and the client gets
//! what was sent.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};

use super::limits::{DECODE_BYTES, DECODED_BYTES};

/// Decodes an answer as it arrives.
#[derive(Default)]
pub(super) enum Decoder {
    /// It is as it is.
    #[default]
    Plain,
    /// By flate2, the library that everybody uses for it.
    Gzip(Box<Gzip>),
    /// It cannot be read, or no more.
    Unreadable,
}

/// A gzip that is being read.
pub(super) struct Gzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    /// Of the request that it answers, for the log.
    request_id: String,
}

/// What an answer's next bytes are.
pub(super) enum Decoded<'a> {
    Plain(&'a [u8]),
    /// As they came.
    Unreadable(&'a [u8]),
}

impl Decoder {
    /// The decoder for the answer to a request, with such headers.
    pub(super) fn of(headers: &HeaderMap, request_id: &str) -> Decoder {
        let Some(coding) = headers.get(CONTENT_ENCODING) else { return Decoder::Plain };
        match coding.as_bytes() {
            b"" | b"identity" => Decoder::Plain,
            b"gzip" | b"x-gzip" => {
                let decoder = MultiGzDecoder::new(Vec::new());
                Decoder::Gzip(Box::new(Gzip { decoder, request_id: request_id.to_owned() }))
            }
            other => {
                let coding = String::from_utf8_lossy(other);
                tracing::warn!(request_id, %coding, "an upstream's answer cannot be read: its tokens are estimated");
                Decoder::Unreadable
            }
        }
    }

    /// Gives `take` what the next bytes are, in steps of bounded size.
    pub(super) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Decoded<'_>)) {
        match self {
            Decoder::Plain => take(Decoded::Plain(bytes)),
            Decoder::Unreadable => take(Decoded::Unreadable(bytes)),
            Decoder::Gzip(gzip) => {
                let Gzip { decoder: gzip, request_id } = &mut **gzip;
                let mut length = 0;
                for (step, at) in bytes.chunks(DECODE_BYTES).zip((0..).step_by(DECODE_BYTES)) {
                    // Flushed, since the next bytes may be long in coming.
                    let decoded = gzip.write_all(step).and_then(|()| gzip.flush());
                    take(Decoded::Plain(gzip.get_ref()));
                    length += gzip.get_ref().len();
                    gzip.get_mut().clear();
                    let bomb = || io::Error::other(format!("more than {DECODED_BYTES} bytes in one piece"));
                    if let Err(error) = decoded.and((length <= DECODED_BYTES).then_some(()).ok_or_else(bomb))
                    {
                        tracing::warn!(request_id, %error, "an upstream's gzip cannot be read: its tokens are estimated");
                        *self = Decoder::Unreadable;
                        // Upwards: some of this step may have been read.
                        take(Decoded::Unreadable(bytes.get(at..).unwrap_or_default()));
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn decoder(coding: &'static str) -> Decoder {
        Decoder::of(&HeaderMap::from_iter([(CONTENT_ENCODING, coding.parse().unwrap())]), "req")
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_read_as_it_comes_and_never_much_at_once() {
        let text = b"0123456789".repeat(1_000_000);
        let (mut decoder, mut read, mut most) = (decoder("gzip"), Vec::new(), 0);
        decoder.feed(&gzip(&text), |decoded| {
            let Decoded::Plain(bytes) = decoded else { panic!("it is gzip") };
            read.extend_from_slice(bytes);
            most = most.max(bytes.len());
        });
        assert!(read == text);
        assert!(most <= 1100 * DECODE_BYTES, "{most} bytes at once");
    }

    #[test]
    fn a_piece_that_grows_beyond_its_limit_is_not_read_on() {
        let (mut decoder, mut read, mut unread) = (decoder("gzip"), 0, 0);
        let bomb = gzip(&vec![b' '; 4 * DECODED_BYTES]);
        decoder.feed(&bomb, |decoded| match decoded {
            Decoded::Plain(plain) => read += plain.len(),
            Decoded::Unreadable(rest) => unread += rest.len(),
        });
        assert!((DECODED_BYTES..DECODED_BYTES + 1100 * DECODE_BYTES).contains(&read), "{read}");
        assert!(unread > bomb.len() / 2, "{unread}");
    }

    #[test]
    fn what_is_flushed_is_read_before_more_comes() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"an event").unwrap();
        encoder.flush().unwrap();
        let (mut decoder, mut read) = (decoder("gzip"), Vec::new());
        for byte in encoder.get_ref() {
            decoder.feed(&[*byte], |decoded| {
                let Decoded::Plain(bytes) = decoded else { panic!("it is gzip") };
                read.extend_from_slice(bytes);
            });
        }
        assert_eq!(read, b"an event");
    }

    #[test]
    fn other_codings_and_broken_gzip_are_not_read() {
        let mut unread = 0;
        for mut decoder in [decoder("br"), decoder("gzip")] {
            for _ in 0..2 {
                decoder.feed(b"no such thing", |decoded| {
                    if let Decoded::Unreadable(bytes) = decoded {
                        unread += bytes.len();
                    }
                });
            }
        }
        assert_eq!(unread, 4 * 13);
    }

    #[test]
    fn what_comes_after_broken_gzip_counts_in_the_same_piece_too() {
        let mut bytes = gzip(b"an event");
        bytes.extend([b'x'; 10 * DECODE_BYTES]);
        let (mut decoder, mut text, mut unread) = (decoder("gzip"), Vec::new(), 0);
        decoder.feed(&bytes, |decoded| match decoded {
            Decoded::Plain(plain) => text.extend_from_slice(plain),
            Decoded::Unreadable(rest) => unread += rest.len(),
        });
        assert_eq!(text, b"an event");
        assert!(unread >= 10 * DECODE_BYTES, "{unread}");
    }
}
