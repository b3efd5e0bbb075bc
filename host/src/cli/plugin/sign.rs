//! `tollgate plugin keygen` and `tollgate plugin sign`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Target, read};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::signature::{self, SecretKey};

/// Makes a key that signs components, in a file that must not be there yet, and prints the one to be trusted.
pub(in crate::cli) fn keygen(file: &Path) -> Result<(), Failure> {
    let secret = SecretKey::generate().context("the system has no randomness")?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut file| writeln!(file, "{}", *secret.to_text()));
    written.with_context(|| format!("cannot make {}", file.display()))?;
    Ok(output::print(format!("{}\n", secret.public()).as_bytes())?)
}

/// Signs a component where it is.
pub(in crate::cli) fn sign(path: Option<&Path>, key: &Path) -> Result<(), Failure> {
    let Target { file, .. } = Target::of(path, None)?;
    let text = Zeroizing::new(read(key)?);
    let secret = std::str::from_utf8(&text).ok().and_then(SecretKey::parse);
    let Some(secret) = secret else {
        let key = key.display();
        return Err(Failure::Usage(format!("{key} is no secret key; `tollgate plugin keygen` makes one")));
    };
    let signed = signature::sign(&read(&file)?, &secret);
    let signed = signed.with_context(|| format!("cannot sign {}", file.display()))?;
    std::fs::write(&file, &signed).with_context(|| format!("cannot write {}", file.display()))?;
    let (file, digest) = (file.display(), hex::encode(Sha256::digest(&signed)));
    let line = format!("{file}: signed by {}, digest {digest}\n", secret.public());
    Ok(output::print(line.as_bytes())?)
}
