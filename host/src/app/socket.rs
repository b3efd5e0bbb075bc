//! The admin socket in the data directory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::net::UnixListener;

use crate::admin::SOCKET;

/// The socket's file; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

/// Listens in a directory that this process holds, so that a socket left there is nobody's.
pub(super) fn listen(directory: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let path = directory.join(SOCKET);
    let what = || format!("cannot listen on {}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    // The directory lets in nobody else, so nobody can connect before the mode is set.
    let listener = UnixListener::bind(&path).with_context(what)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
    Ok((listener, SocketFile(path)))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_the_new_one_is_for_this_user_alone() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap();
        let (_listener, file) = listen(home.path()).unwrap();
        let path = home.path().join(SOCKET);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(!path.exists());
    }
}
