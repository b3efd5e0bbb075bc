//! Compiled code kept on disk, so that a restart or a rollback does not compile again.
//!
//! Loading compiled code is as good as running it, so a file counts only with this host's signature over its name and
//! content. Anything else (older engine, torn write, foreign file) is compiled anew and replaced.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::limits::MAX_COMPILED_BYTES;
use super::{Compiler, ComponentError, Engine};

const SIGNATURE_BYTES: usize = 32;
const EXTENSION: &str = "cwasm";

/// The directory of compiled code. Cheap to clone; its functions block.
#[derive(Clone)]
pub(super) struct Compiled {
    directory: Arc<Path>,
    signer: Hmac<Sha256>,
    compiler: Compiler,
    engine: Engine,
    engine_hash: Arc<str>,
}

/// Where a component's code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Kept,
    Compiled,
}

impl Compiled {
    /// Opens or creates `directory`, readable by this user alone.
    pub(super) fn open(
        directory: &Path,
        secret: &[u8],
        compiler: Compiler,
        engine: &Engine,
    ) -> io::Result<Compiled> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let signer = <Hmac<Sha256> as Mac>::new_from_slice(secret).map_err(io::Error::other)?;
        Ok(Compiled {
            directory: directory.into(),
            signer: signer.chain_update(b"tollgate compiled code 1\0"),
            compiler,
            engine: engine.clone(),
            engine_hash: engine_hash(engine).into(),
        })
    }

    /// The component's code, kept or compiled. `digest` is the SHA-256 of `wasm` in hexadecimal.
    pub(super) fn load(&self, digest: &str, wasm: &[u8]) -> Result<(Component, Origin), ComponentError> {
        let name = format!("{digest}-{}.{EXTENSION}", self.engine_hash);
        if let Some(component) = self.kept(&name) {
            return Ok((component, Origin::Kept));
        }
        let code = self.compiler.compile(&self.engine, wasm)?;
        #[expect(unsafe_code, reason = "the compiler is this very program")]
        let component = unsafe { Component::deserialize(self.engine.wasm(), &code) }
            .map_err(|error| ComponentError::NotCompiled(format!("the new code does not load: {error:#}")))?;
        // Without the file everything still works, only slower after a restart.
        if let Err(error) = self.keep(&name, &code) {
            tracing::warn!(%error, digest, "cannot keep compiled code");
        }
        Ok((component, Origin::Compiled))
    }

    fn kept(&self, name: &str) -> Option<Component> {
        let file = fs::read(self.directory.join(name)).ok()?;
        let (code, signature) = file.split_at_checked(file.len().checked_sub(SIGNATURE_BYTES)?)?;
        if self.signature(name, code).verify_slice(signature).is_err() {
            tracing::warn!(name, "compiled code was not written by this host, compiling again");
            return None;
        }
        #[expect(unsafe_code, reason = "the signature says that this host wrote these very bytes")]
        let component = unsafe { Component::deserialize(self.engine.wasm(), code) };
        component
            .inspect_err(|error| tracing::warn!(%error, name, "kept code does not load, compiling again"))
            .ok()
    }

    /// Written aside and renamed, so that a reader never sees half a file; a crash is found by the signature.
    fn keep(&self, name: &str, code: &[u8]) -> io::Result<()> {
        self.make_room(code.len() as u64)?;
        let aside = self.directory.join(format!("{name}.{:08x}.tmp", fresh_number()?));
        let written = write_private(&aside, code, &self.signature(name, code).finalize().into_bytes())
            .and_then(|()| fs::rename(&aside, self.directory.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }

    /// Removes the files written longest ago, leftovers of crashes included, until `coming` bytes fit.
    fn make_room(&self, coming: u64) -> io::Result<()> {
        let mut files: Vec<(std::time::SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        files.sort();
        let mut total = files.iter().map(|(_, size, _)| size).sum::<u64>() + coming;
        for (_, size, path) in files {
            if total <= MAX_COMPILED_BYTES {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }

    fn signature(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        self.signer.clone().chain_update(name).chain_update(b"\0").chain_update(code)
    }
}

fn write_private(path: &Path, code: &[u8], signature: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(code)?;
    file.write_all(signature)
}

fn fresh_number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u32::from_le_bytes(bytes))
}

/// What the engine's version, settings and processor make of compiled code, as 16 hexadecimal digits.
fn engine_hash(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sha = Sha(Sha256::new());
    engine.wasm().precompile_compatibility_hash().hash(&mut sha);
    let mut hash = hex::encode(sha.0.finalize());
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAT: &[u8] = b"(component)";

    fn open(directory: &Path, secret: &[u8]) -> Compiled {
        Compiled::open(directory, secret, Compiler::Here, &Engine::new().unwrap()).unwrap()
    }

    fn only_file(directory: &Path) -> PathBuf {
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.pop().unwrap()
    }

    #[test]
    fn code_is_compiled_once_and_kept_privately() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("compiled");
        let compiled = open(&directory, b"secret");
        let wasm = wat::parse_bytes(WAT).unwrap();
        assert_eq!(compiled.load("d1", &wasm).unwrap().1, Origin::Compiled);
        assert_eq!(compiled.load("d1", &wasm).unwrap().1, Origin::Kept);
        assert_eq!(open(&directory, b"secret").load("d1", &wasm).unwrap().1, Origin::Kept);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(only_file(&directory)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_tampered_file_is_compiled_again_and_replaced() {
        let home = tempfile::tempdir().unwrap();
        let compiled = open(home.path(), b"secret");
        let wasm = wat::parse_bytes(WAT).unwrap();
        compiled.load("d1", &wasm).unwrap();
        let path = only_file(home.path());
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 1], &good[..10], b""] {
            fs::write(&path, bad).unwrap();
            assert_eq!(compiled.load("d1", &wasm).unwrap().1, Origin::Compiled);
            assert_eq!(compiled.load("d1", &wasm).unwrap().1, Origin::Kept);
        }
    }

    #[test]
    fn a_file_of_another_host_or_another_component_does_not_count() {
        let home = tempfile::tempdir().unwrap();
        let compiled = open(home.path(), b"secret");
        let wasm = wat::parse_bytes(WAT).unwrap();
        compiled.load("d1", &wasm).unwrap();
        assert_eq!(open(home.path(), b"other").load("d1", &wasm).unwrap().1, Origin::Compiled);
        let renamed = only_file(home.path()).to_str().unwrap().replace("d1-", "d2-");
        fs::copy(only_file(home.path()), renamed).unwrap();
        assert_eq!(compiled.load("d2", &wasm).unwrap().1, Origin::Compiled);
    }
}
