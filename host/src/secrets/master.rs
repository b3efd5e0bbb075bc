//! The master key: under it the keys are kept that encrypt everything else, and it is never in the store.
//!
//! In a file it protects what leaves the machine without that file: backups and copies of the data file, a disk that is
//! sold. Whoever can read both has everything, hence a file elsewhere, or the environment, for who fears more.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{limits::KEY_FILE_BYTES, seal::Key};

/// Where the master key is.
#[derive(Clone, Debug)]
pub enum MasterKey {
    /// In a file that this server may make, and replace when keys are rotated.
    File(PathBuf),
    /// It was given: by the environment or by a person. The text says by what, for messages.
    Given {
        /// The key.
        key: Key,
        /// Such as `the variable TOLLGATE_MASTER_KEY`.
        origin: String,
    },
}

/// Why a master key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file cannot be read or written.
    #[error("the master key's file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has something else in it.
    #[error("the master key's file {} does not hold a key: 64 hexadecimal digits", .0.display())]
    NoKey(PathBuf),
    /// There is no file although there are secrets.
    #[error(
        "the master key's file {} is missing, and secrets are kept under key {fingerprint}: put it back, or name another with [secrets] key_file",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Of the key that is needed.
        fingerprint: String,
    },
}

impl MasterKey {
    /// What messages call it.
    pub(super) fn origin(&self) -> String {
        match self {
            MasterKey::File(path) => path.display().to_string(),
            MasterKey::Given { origin, .. } => origin.clone(),
        }
    }

    /// The keys that it may be, the likelier first: while one is replaced there are two. None: there is no file yet.
    pub(super) fn candidates(&self) -> Result<Vec<Key>, MasterKeyError> {
        match self {
            MasterKey::Given { key, .. } => Ok(vec![key.clone()]),
            MasterKey::File(path) => {
                let both = [read(path)?, read(&unfinished(path))?];
                Ok(both.into_iter().flatten().collect())
            }
        }
    }

    /// Puts a key beside the present one, which it is going to replace. It must be on disk before it is used.
    pub(super) fn prepare(&self, key: &Key) -> Result<(), MasterKeyError> {
        match self {
            MasterKey::Given { .. } => Ok(()),
            MasterKey::File(path) => write(&unfinished(path), key).map_err(|source| error(path, source)),
        }
    }

    /// The key beside the present one, if there is one.
    pub(super) fn prepared(&self) -> Result<Option<Key>, MasterKeyError> {
        match self {
            MasterKey::Given { .. } => Ok(None),
            MasterKey::File(path) => read(&unfinished(path)),
        }
    }

    /// Leaves `key`, one of the candidates, as the only one.
    pub(super) fn settle(&self, key: &Key) -> Result<(), MasterKeyError> {
        let MasterKey::File(path) = self else { return Ok(()) };
        let beside = unfinished(path);
        let is_beside = read(&beside)?.is_some_and(|other| other.digits() == key.digits());
        let settled = match is_beside {
            true => std::fs::rename(&beside, path).and_then(|()| sync_directory(path)),
            false => match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        settled.map_err(|source| error(path, source))
    }
}

fn error(path: &Path, source: io::Error) -> MasterKeyError {
    MasterKeyError::File { path: path.to_path_buf(), source }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn read(path: &Path) -> Result<Option<Key>, MasterKeyError> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(KEY_FILE_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Key::parse(&text).map(Some).ok_or_else(|| MasterKeyError::NoKey(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => match source.kind() {
            io::ErrorKind::NotFound => Ok(None),
            io::ErrorKind::InvalidData => Err(MasterKeyError::NoKey(path.to_path_buf())),
            _ => Err(error(path, source)),
        },
    }
}

/// Under another name until it is whole: a crash in between must not leave half a key.
fn write(path: &Path, key: &Key) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(key.digits().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
