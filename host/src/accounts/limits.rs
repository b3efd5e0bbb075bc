//! Every limit of the accounts that are managed at run time, with its reason.

use std::time::Duration;

/// How often it is looked whether anybody still uses the demo upstream that had to go.
pub(crate) const DEMO_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Accounts in the store: each is looked at for every request, which with so many takes some microseconds.
pub(crate) const ACCOUNTS: usize = 1_000;

/// Models of one account: more than any upstream lists.
pub(crate) const MODELS: usize = 1_024;

/// Longest name of a model, as the gateway takes it from a request.
pub(crate) const MODEL_BYTES: usize = 256;

/// Longest description.
pub(crate) const DESCRIPTION_BYTES: usize = 1_024;

/// Longest mail address, by RFC 5321.
pub(crate) const EMAIL_BYTES: usize = 254;

/// Longest address of an upstream or a proxy; longer ones do not fit into the heads of requests that some servers take.
pub(crate) const URL_BYTES: usize = 2_048;

/// Longest credential: tokens with claims in them have some thousand bytes, and a header must carry them.
pub(crate) const CREDENTIAL_BYTES: usize = 8 * 1_024;

/// Accounts whose secrets are written in one transaction when keys are rotated: it stays far below the store's limits.
pub(crate) const RESEALED_AT_ONCE: usize = 64;
