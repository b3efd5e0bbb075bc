//! The data directory: one server at a time, and a secret of its own.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const LOCK: &str = "lock";
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;

/// Another server has the data directory.
#[derive(Debug, thiserror::Error)]
#[error("another server (process {pid}) is running on data directory {}", path.display())]
pub struct InUse {
    path: PathBuf,
    pid: String,
}

/// A data directory that this process holds; let go when dropped, also by a crash.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if need be, for this user alone, and takes hold of it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot use data directory {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(what)?;
        let path = path.canonicalize().with_context(what)?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's secret: hashes of keys and tokens depend on it, so it is made once and on disk before it is used.
    pub(super) fn secret(&self) -> anyhow::Result<[u8; SECRET_BYTES]> {
        let path = self.path.join(SECRET);
        match read_secret(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_secret(&self.path).with_context(|| format!("cannot create {}", path.display()))
            }
            other => other.with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(InUse { path: directory.to_path_buf(), pid }.into());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()))?;
    Ok(file)
}

fn read_secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    let bytes = std::fs::read(path)?;
    bytes.try_into().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("it does not have {SECRET_BYTES} bytes"))
    })
}

fn create_secret(directory: &Path) -> anyhow::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    // Under another name until it is whole: a crash in between must not leave half a secret.
    let unfinished = directory.join("secret.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, directory.join(SECRET))?;
    File::open(directory)?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_secret_is_made_once_and_for_this_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let directory = DataDirectory::open(&path).unwrap();
        let secret = directory.secret().unwrap();
        assert_ne!(secret, [0; SECRET_BYTES]);
        assert_eq!((mode(&path), mode(&path.join(SECRET))), (0o700, 0o600));
        drop(directory);
        assert_eq!(DataDirectory::open(&path).unwrap().secret().unwrap(), secret);
    }

    #[test]
    fn a_secret_cut_short_is_an_error_and_not_a_new_secret() {
        let home = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(home.path()).unwrap();
        std::fs::write(home.path().join(SECRET), [1; 5]).unwrap();
        assert!(directory.secret().unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn a_second_server_is_told_who_holds_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(home.path()).unwrap();
        let error = DataDirectory::open(home.path()).unwrap_err();
        assert!(error.is::<InUse>());
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DataDirectory::open(home.path()).unwrap();
    }
}
