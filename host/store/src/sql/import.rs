//! Taking over an SQLite file: past SQL, page by page, into a file that no database has yet.
//!
//! The database goes on with its old file until the new one is whole, on disk and checked; then one small commit gives
//! it the new one. Until that commit a crash or an error leaves nothing but pages that the committer removes.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};

use super::{
    Access, Database, SqlError, Value,
    access::Rules,
    connection::Connection,
    database::Inner,
    files::File,
    guard::Until,
    header::{HEADER_BYTES, Header, READ_VERSION, WRITE_VERSION},
    limits::{IMPORT_BYTES, IMPORT_COMMIT_BYTES},
    pages::{FileChange, Meta, PageBatch, highest},
    readers::Abandon,
    vfs::Vfs,
};
use crate::{StorageError, commit::Change, core::unavailable, error::guarded};

/// Problems of a damaged file that are told.
const PROBLEMS: u32 = 5;

/// An SQLite file on its way into a database. Dropped before it has come to its end it leaves the database as it was.
pub struct Import {
    inner: Arc<Inner>,
    replace: bool,
    deadline: Instant,
    /// Held until the database has it.
    file: Arc<File>,
    header: Option<Header>,
    /// What is not committed yet; at a whole chunk of the file, but for the file's end.
    buffer: Vec<u8>,
    /// Bytes committed.
    committed: u64,
    _place: OwnedSemaphorePermit,
}

/// What an import has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tables in it.
    pub tables: u64,
}

impl Database {
    /// Begins to replace all that is in the database by an SQLite file, which is then written piece by piece; what others
    /// write to the database meanwhile is lost. Without `replace` the database must be empty. One import of a database runs
    /// at a time; it ends with the handle's deadline.
    pub async fn import(&self, replace: bool) -> Result<Import, SqlError> {
        self.check_access(&[Access::Full])?;
        let inner = self.inner.clone();
        let place = inner.importing.clone().try_acquire_owned();
        let place = place.map_err(|_| SqlError::Unavailable("an import into it is running".to_owned()))?;
        if !replace && !self.is_empty().await? {
            return Err(SqlError::not_empty());
        }
        let vfs = inner.readers.vfs();
        let file = run(move || {
            let committer = vfs.shared().committer();
            let stored = highest(&committer.begin_read()?).map_err(unavailable)?;
            let file = committer.files().create(stored);
            file.ok_or_else(SqlError::no_more_files)
        })
        .await?;
        Ok(Import {
            inner,
            replace,
            deadline: self.ends(),
            file: Arc::new(file),
            header: None,
            buffer: Vec::new(),
            committed: 0,
            _place: place,
        })
    }

    async fn is_empty(&self) -> Result<bool, SqlError> {
        let outcome = self.query("SELECT EXISTS (SELECT 1 FROM sqlite_schema)".into()).await?;
        Ok(outcome.rows == [[Value::Integer(0)]])
    }
}

impl Import {
    /// Takes the next bytes of the file. After an error the import is over.
    pub async fn write(&mut self, mut piece: &[u8]) -> Result<(), SqlError> {
        while !piece.is_empty() {
            let (now, rest) = piece.split_at(piece.len().min(IMPORT_COMMIT_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            piece = rest;
            if self.header.is_none() && self.buffer.len() >= HEADER_BYTES {
                self.begin()?;
            }
            if self.buffer.len() == IMPORT_COMMIT_BYTES {
                self.commit(false).await?;
            }
        }
        Ok(())
    }

    /// Checks what has come as the whole file, and gives it to the database. On disk when it returns.
    pub async fn finish(mut self) -> Result<Imported, SqlError> {
        let Some(header) = self.header else {
            return Err(SqlError::Invalid("this is no SQLite database file".to_owned()));
        };
        header.check_size(self.committed + self.buffer.len() as u64)?;
        self.commit(true).await?;
        let bytes = self.committed;
        let (vfs, tables) = self.check().await?;
        self.inner.switch(vfs, self.replace, self.deadline).await?;
        Ok(Imported { bytes, tables })
    }

    fn begin(&mut self) -> Result<(), SqlError> {
        self.header = Some(Header::parse(&self.buffer)?);
        // A write-ahead log is for real files; all that was in it must have been folded into the file.
        for at in [WRITE_VERSION, READ_VERSION] {
            if let Some(version) = self.buffer.get_mut(at) {
                *version = 1;
            }
        }
        Ok(())
    }

    /// Makes durable what is there in whole chunks; the last of the file need not be whole.
    async fn commit(&mut self, last: bool) -> Result<(), SqlError> {
        if Instant::now() >= self.deadline {
            return Err(SqlError::deadline());
        }
        let Some(header) = self.header else { return Ok(()) };
        let chunk_bytes = header.chunk_bytes();
        let whole = self.buffer.len() - self.buffer.len() % chunk_bytes as usize;
        let length = if last { self.buffer.len() } else { whole };
        let size = self.committed + length as u64;
        if size > IMPORT_BYTES {
            return Err(SqlError::TooLarge(format!("a file has at most {IMPORT_BYTES} bytes")));
        }
        let begins = self.committed == 0;
        let first = u32::try_from(self.committed / u64::from(chunk_bytes)).unwrap_or(u32::MAX);
        let rest = self.buffer.split_off(length);
        let chunks = self.buffer.chunks(chunk_bytes as usize).map(|part| {
            let mut chunk = vec![0; chunk_bytes as usize].into_boxed_slice();
            chunk.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            chunk
        });
        let chunks: BTreeMap<_, _> = (first..).zip(chunks).collect();
        self.buffer = rest;
        let id = self.file.id();
        let meta = Meta { chunk_bytes, size };
        let batch = PageBatch { id, register: None, meta, keep: u32::MAX, chunks };
        // Held until the commit is made, even if nobody waits for it any more: nothing may come to a file after its removal.
        let (file, vfs) = (self.file.clone(), self.inner.readers.vfs());
        run(move || {
            let _held = file;
            let begin = begins.then_some(Change::File(FileChange::Begin { id }));
            Ok(vfs.shared().committer().commit(Some(batch), begin.into_iter().collect())?)
        })
        .await?;
        self.committed = size;
        Ok(())
    }

    /// Lets SQLite look at the whole file, as a reader of it would see it.
    async fn check(&self) -> Result<(Arc<Vfs>, u64), SqlError> {
        let shared = self.inner.readers.vfs().shared().of_file(self.file.clone());
        let (abandon, deadline) = (Abandon::default(), self.deadline);
        let until = Until { deadline, abandoned: abandon.flag() };
        run(move || {
            let vfs =
                Vfs::register(Arc::new(shared)).map_err(|error| SqlError::Unavailable(error.to_string()))?;
            let vfs = Arc::new(vfs);
            let tables = inspect(&vfs, &until)?;
            Ok((vfs, tables))
        })
        .await
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut structure = formatter.debug_struct("Import");
        structure.field("file", &self.file).field("committed", &self.committed).finish_non_exhaustive()
    }
}

/// Tables of a file that is in order. Whatever SQLite cannot read of it is the file's fault, unless the store itself is down.
fn inspect(vfs: &Arc<Vfs>, until: &Until) -> Result<u64, SqlError> {
    inspected(vfs, until).map_err(|error| match error {
        SqlError::Invalid(text) | SqlError::Storage(StorageError::Corrupt(text))
            if vfs.shared().committer().down().is_none() =>
        {
            SqlError::Invalid(format!("the file is damaged: {text}"))
        }
        other => other,
    })
}

fn inspected(vfs: &Arc<Vfs>, until: &Until) -> Result<u64, SqlError> {
    let connection = Connection::reader(vfs.clone())?;
    let rules = Arc::new(Rules::new(Access::Full, u64::MAX));
    let ask = |sql: &str| connection.query(&rules, &sql.into(), until);
    connection.control("PRAGMA cell_size_check = ON")?;
    let problems = ask(&format!("PRAGMA integrity_check({PROBLEMS})"))?;
    let problems: Vec<_> = problems.rows.iter().flatten().filter_map(text).collect();
    vfs.shared().check_readable()?;
    if problems != ["ok"] {
        return Err(SqlError::Invalid(problems.join("; ")));
    }
    let tables = ask("SELECT count(*) FROM sqlite_schema WHERE type = 'table'")?;
    Ok(match tables.rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(count)) => u64::try_from(*count).unwrap_or_default(),
        _ => 0,
    })
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

/// Works on a thread that may block.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    spawn_blocking(move || guarded(work)).await.unwrap_or_else(|_| Err(SqlError::closing()))
}
