//! How a command fails: what it prints and its exit code.

use std::path::PathBuf;
use std::process::ExitCode;

/// Refused, or failed.
const FAILED: u8 = 1;
/// Wrong usage, or nobody there to talk to. clap uses the same for wrong usage.
const UNUSABLE: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// No server answers on the socket of a data directory.
    NoSocket(PathBuf),
    /// The socket of a data directory is there, and not for this user.
    NotOurs(PathBuf),
    /// No server answers at a URL.
    NoServer { url: String, reason: String },
    /// The command line or the configuration is wrong.
    Usage(String),
    /// The server refused.
    Refused { message: String, hint: Option<String> },
    /// Anything else.
    Failed(anyhow::Error),
}

impl Failure {
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NoSocket(_) | Self::NotOurs(_) | Self::NoServer { .. } | Self::Usage(_) => UNUSABLE,
            Self::Refused { .. } | Self::Failed(_) => FAILED,
        })
    }

    /// Says where it happened.
    pub(super) fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Refused { message, hint } => Self::Refused { message: format!("{place}: {message}"), hint },
            Self::Failed(error) => Self::Failed(error.context(place.to_string())),
            other => other,
        }
    }

    /// Prints what happened, and what helps, to stderr.
    pub(super) fn print(&self) {
        eprintln!("error: {}", self.message());
        if let Some(hint) = self.hint() {
            eprintln!("hint: {hint}");
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::NoSocket(data) => format!("no server is running on data directory {}", data.display()),
            Self::NotOurs(socket) => format!("{} belongs to another user", socket.display()),
            Self::NoServer { url, reason } => format!("no server is running at {url}: {reason}"),
            Self::Usage(message) | Self::Refused { message, .. } => message.clone(),
            Self::Failed(error) => {
                let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
                causes.join(": ")
            }
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoSocket(_) => Some(
                "start it with `tollgate serve`, name its directory with --data, or its URL with --server"
                    .to_owned(),
            ),
            Self::NotOurs(_) => Some("run as that user, or use --server and --token".to_owned()),
            Self::Refused { hint, .. } => hint.clone(),
            Self::NoServer { .. } | Self::Usage(_) | Self::Failed(_) => None,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
