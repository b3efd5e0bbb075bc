//! Secrets that a command needs: from the environment, from stdin or from a person. Never from an argument, which
//! everybody on the machine can see.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::secret::Secret;

/// Asks the person at the terminal, without showing what is typed.
pub(super) fn ask(what: &str) -> Result<Secret, Failure> {
    let text = rpassword::prompt_password(format!("{what}: ")).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot ask for the {what}"))?;
    Ok(Secret::new(text.trim()))
}

/// Asks, if there is somebody to be asked; `otherwise` says what to do else.
pub(super) fn ask_or(what: &str, otherwise: &str) -> Result<Secret, Failure> {
    if io::stdin().is_terminal() { ask(what) } else { Err(Failure::Usage(otherwise.to_owned())) }
}

/// Asks whether something is really to be done; anything but yes is a no. `otherwise` says what to do where nobody can be asked.
pub(super) fn confirm(what: &str, otherwise: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(otherwise.to_owned()));
    }
    eprint!("{what} [y/N] ");
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text).context("cannot read stdin")?;
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Refused { message: "nothing was changed".to_owned(), hint: None }),
    }
}

/// What a variable holds.
pub(super) fn variable(name: &str) -> Result<Secret, Failure> {
    match std::env::var(name) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(Zeroizing::new(text).trim())),
        _ => Err(Failure::Usage(format!("the variable {name} is not set"))),
    }
}

/// The next line of stdin.
pub(super) fn line(what: &str) -> Result<Secret, Failure> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut text).context("cannot read stdin")?;
    match text.trim() {
        "" => Err(Failure::Usage(format!("stdin has no line with the {what}"))),
        text => Ok(Secret::new(text)),
    }
}
