//! Chunks: cut, hashed, compressed where it pays, and laid out so that redb's pages are nearly full.

use sha2::{Digest, Sha256};

use super::{
    BlobError,
    limits::{
        CHUNK_BYTES, CHUNK_PARTS, COMPRESSION_LEVEL, PAGE_BYTES, PAGE_OVERHEAD, SAMPLE_BYTES, TAIL_BYTES,
    },
};

/// SHA-256 of a chunk as it was uploaded.
pub(super) type Hash = [u8; 32];

/// How the bytes of a chunk are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Codec {
    Raw = 0,
    Zstd = 1,
}

/// A chunk on its way to the committer.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) hash: Hash,
    pub(super) codec: Codec,
    pub(super) stored: Vec<u8>,
}

/// How a chunk's stored bytes go into rows: first those with pages of their own, then perhaps a tail beside others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout<'a> {
    pub(super) parts: Vec<&'a [u8]>,
    pub(super) tail: Option<&'a [u8]>,
}

/// Cuts bytes into chunks; all but the last have `CHUNK_BYTES`. Takes milliseconds for megabytes.
pub(super) fn cut(bytes: &[u8]) -> Result<Vec<Chunk>, BlobError> {
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(failed)?;
    bytes.chunks(CHUNK_BYTES).map(|raw| chunk(&mut compressor, raw)).collect()
}

fn chunk(compressor: &mut zstd::bulk::Compressor<'_>, raw: &[u8]) -> Result<Chunk, BlobError> {
    let hash = Sha256::digest(raw).into();
    if pays(compressor, sample(raw))? {
        let stored = compressor.compress(raw).map_err(failed)?;
        if is_smaller(stored.len(), raw.len()) {
            return Ok(Chunk { hash, codec: Codec::Zstd, stored });
        }
    }
    Ok(Chunk { hash, codec: Codec::Raw, stored: raw.to_vec() })
}

/// Whether a sample says that compressing is worth the time.
fn pays(compressor: &mut zstd::bulk::Compressor<'_>, sample: &[u8]) -> Result<bool, BlobError> {
    Ok(is_smaller(compressor.compress(sample).map_err(failed)?.len(), sample.len()))
}

/// From the middle: formats that are compressed already often begin with text that is not.
fn sample(raw: &[u8]) -> &[u8] {
    let from = raw.len().saturating_sub(SAMPLE_BYTES) / 2;
    raw.get(from..raw.len().min(from + SAMPLE_BYTES)).unwrap_or(raw)
}

/// By an eighth at least: less is not worth decompressing it each time.
fn is_smaller(compressed: usize, raw: usize) -> bool {
    compressed + raw / 8 <= raw
}

fn failed(error: std::io::Error) -> BlobError {
    BlobError::Unavailable(format!("cannot compress: {error}"))
}

impl Codec {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|codec| *codec as u8 == byte)
    }

    /// A chunk of at most this length from what was stored; none if it cannot be.
    pub(super) fn decode(self, stored: Vec<u8>, most: usize) -> Option<Vec<u8>> {
        let raw = match self {
            Self::Raw => stored,
            Self::Zstd => zstd::bulk::decompress(&stored, most).ok()?,
        };
        (raw.len() <= most).then_some(raw)
    }
}

/// Cuts stored bytes so that each row but the last fills its pages, which redb rounds up to a power of two.
pub(super) fn lay_out(mut stored: &[u8]) -> Layout<'_> {
    let mut layout = Layout { parts: Vec::with_capacity(CHUNK_PARTS), tail: None };
    while !stored.is_empty() {
        if stored.len() <= TAIL_BYTES {
            layout.tail = Some(stored);
            break;
        }
        let last = layout.parts.len() + 1 == CHUNK_PARTS;
        let length = if last { stored.len() } else { full_pages(stored.len()) };
        let (part, rest) = stored.split_at_checked(length).unwrap_or((stored, &[]));
        layout.parts.push(part);
        stored = rest;
    }
    layout
}

/// Bytes of the longest row that fills its pages and is no longer than this; if there is none, what there is.
fn full_pages(length: usize) -> usize {
    let pages = (length + PAGE_OVERHEAD) / PAGE_BYTES;
    match pages.checked_ilog2() {
        Some(order) => (PAGE_BYTES << order) - PAGE_OVERHEAD,
        None => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of redb's pages that rows of these lengths take; tails share theirs.
    fn pages(layout: &Layout<'_>) -> usize {
        let own = |part: &&[u8]| (part.len() + PAGE_OVERHEAD).next_power_of_two().max(PAGE_BYTES);
        layout.parts.iter().map(own).sum::<usize>() + layout.tail.map_or(0, <[u8]>::len)
    }

    #[test]
    fn a_full_chunk_is_one_row_that_fills_its_pages() {
        let chunk = vec![1; CHUNK_BYTES];
        let layout = lay_out(&chunk);
        assert_eq!((layout.parts.len(), layout.tail), (1, None));
        assert_eq!(pages(&layout), CHUNK_BYTES + PAGE_OVERHEAD);
    }

    #[test]
    fn a_layout_has_all_bytes_in_order_and_little_room_left() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES).map(|number| (number % 251) as u8).collect();
        let (mut taken, mut stored) = (0, 0);
        for length in (1..=CHUNK_BYTES).step_by(97) {
            let layout = lay_out(&bytes[..length]);
            assert!(layout.parts.len() <= CHUNK_PARTS);
            let mut together = layout.parts.concat();
            together.extend_from_slice(layout.tail.unwrap_or_default());
            assert_eq!(together, &bytes[..length]);
            (taken, stored) = (taken + pages(&layout), stored + length);
            if length > 32 << 10 {
                assert!(pages(&layout) * 7 <= length * 8, "{} for {length}", pages(&layout));
            }
        }
        assert!(taken * 100 <= stored * 105, "{taken} for {stored}");
    }

    #[test]
    fn text_is_compressed_and_noise_is_not_and_both_come_back() {
        let text: Vec<u8> = b"a line like many others\n".iter().copied().cycle().take(300_000).collect();
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..300_000).map(|_| noise()).collect();
        for (bytes, codec) in [(text, Codec::Zstd), (noise, Codec::Raw)] {
            let mut back = Vec::new();
            for chunk in cut(&bytes).unwrap() {
                assert_eq!(chunk.codec, codec);
                let length = CHUNK_BYTES.min(bytes.len() - back.len());
                back.extend(chunk.codec.decode(chunk.stored, length).unwrap());
            }
            assert!(back == bytes);
        }
    }

    #[test]
    fn damaged_bytes_are_found_out() {
        assert_eq!(Codec::Zstd.decode(vec![1, 2, 3], 10), None);
        assert_eq!(Codec::Raw.decode(vec![1, 2, 3], 2), None);
        let longer = zstd::bulk::compress(&[0; 100], 1).unwrap();
        assert_eq!(Codec::Zstd.decode(longer, 10), None);
    }
}
