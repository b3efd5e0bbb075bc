//! Memory in place of a file, for stores that need not outlive the process.

use std::{
    fmt,
    io::{self, Error, ErrorKind},
};

use parking_lot::RwLock;
use redb::StorageBackend;

/// Bytes of a piece: what grows is never copied, and what nobody has written takes no memory yet.
const PIECE: usize = 1 << 20;

/// What redb takes for a file. It has a length at most, beyond which it is full as a disk is.
pub(crate) struct Ram {
    most: u64,
    content: RwLock<Content>,
}

#[derive(Default)]
struct Content {
    length: u64,
    pieces: Vec<Box<[u8]>>,
}

impl Ram {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, content: RwLock::default() }
    }
}

impl Content {
    /// Shows the places of the bytes from `offset` on, piece by piece.
    fn each(
        &mut self,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(&mut [u8], usize),
    ) -> io::Result<()> {
        let Self { pieces, .. } = self;
        walk(offset, length, |number, from, done, part| {
            let place = pieces.get_mut(number).and_then(|piece| piece.get_mut(from..from + part));
            visit(place.ok_or_else(beyond)?, done);
            Ok(())
        })
    }
}

/// Splits bytes into parts that lie in one piece each: number of the piece, place in it, bytes before the part, and its length.
fn walk(
    offset: u64,
    length: usize,
    mut visit: impl FnMut(usize, usize, usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    let offset = usize::try_from(offset).map_err(|_| beyond())?;
    let mut done = 0;
    while done < length {
        let at = offset.checked_add(done).ok_or_else(beyond)?;
        let from = at % PIECE;
        let part = (PIECE - from).min(length - done);
        visit(at / PIECE, from, done, part)?;
        done += part;
    }
    Ok(())
}

fn beyond() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "beyond the end")
}

impl StorageBackend for Ram {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.content.read();
        walk(offset, out.len(), |number, from, done, part| {
            let source = content.pieces.get(number).and_then(|piece| piece.get(from..from + part));
            let target = out.get_mut(done..done + part);
            target.ok_or_else(beyond)?.copy_from_slice(source.ok_or_else(beyond)?);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > self.most {
            let text = format!("stores in memory have at most {} bytes together", self.most);
            return Err(Error::new(ErrorKind::StorageFull, text));
        }
        let mut content = self.content.write();
        let pieces = usize::try_from(length.div_ceil(PIECE as u64)).map_err(|_| beyond())?;
        if let Some(cut) = content.length.checked_sub(length).filter(|cut| *cut > 0) {
            // What comes back later is zero, as in a file.
            let end = content.pieces.len() as u64 * PIECE as u64;
            let cut = cut.min(end.saturating_sub(length)).min(PIECE as u64 - length % PIECE as u64);
            content.each(length, usize::try_from(cut).unwrap_or_default(), |place, _| place.fill(0))?;
        }
        content.pieces.resize_with(pieces, || vec![0; PIECE].into_boxed_slice());
        content.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.content.write().each(offset, data.len(), |place, done| {
            let source = data.get(done..).unwrap_or_default();
            place.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        })
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ram").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_across_pieces_and_what_was_cut_off_comes_back_as_zero() {
        let ram = Ram::new(4 * PIECE as u64);
        ram.set_len(3 * PIECE as u64).unwrap();
        let data: Vec<u8> = (0..PIECE + 10).map(|number| number as u8 | 1).collect();
        let at = PIECE as u64 - 5;
        ram.write(at, &data).unwrap();
        let mut read = vec![0; data.len()];
        ram.read(at, &mut read).unwrap();
        assert_eq!(read, data);
        ram.set_len(PIECE as u64 + 7).unwrap();
        ram.set_len(3 * PIECE as u64).unwrap();
        ram.read(at, &mut read).unwrap();
        assert_eq!(read[..12], data[..12]);
        assert!(read[12..].iter().all(|byte| *byte == 0));
        assert!(ram.read(3 * PIECE as u64 - 1, &mut [0; 2]).is_err());
        assert!(ram.write(u64::MAX, &[0; 2]).is_err());
        assert_eq!(ram.set_len(4 * PIECE as u64 + 1).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(ram.len().unwrap(), 3 * PIECE as u64);
    }
}
