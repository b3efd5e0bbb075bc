//! Whose fault it is that a request failed. The status that its client got does not tell: an account whose key is refused
//! is a 502 to the client, and a 429 may be for the client's limits or for the accounts'.

use super::error::Class;
use crate::plugin::admission::Ending;

/// Why a request, or an attempt on one account, failed; `wit/policy/ingestion.wit` says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    InvalidRequest,
    Auth,
    RateLimit,
    ClientTimeout,
    ClientClosed,
    UpstreamAuth,
    UpstreamPayment,
    UpstreamRateLimit,
    UpstreamTimeout,
    Upstream,
    Stream,
    Unavailable,
    Internal,
}

impl Cause {
    /// As the log has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Cause::InvalidRequest => "invalid_request",
            Cause::Auth => "auth",
            Cause::RateLimit => "rate_limit",
            Cause::ClientTimeout => "client_timeout",
            Cause::ClientClosed => "client_closed",
            Cause::UpstreamAuth => "upstream_auth",
            Cause::UpstreamPayment => "upstream_payment",
            Cause::UpstreamRateLimit => "upstream_rate_limit",
            Cause::UpstreamTimeout => "upstream_timeout",
            Cause::Upstream => "upstream",
            Cause::Stream => "stream",
            Cause::Unavailable => "unavailable",
            Cause::Internal => "internal",
        }
    }

    /// Why the gateway itself did not serve a client.
    pub(super) fn of_refusal(class: Class) -> Cause {
        match class {
            Class::Invalid | Class::Model | Class::Path | Class::Method | Class::TooLarge => {
                Cause::InvalidRequest
            }
            Class::Key | Class::Forbidden => Cause::Auth,
            Class::RequestLimit | Class::TokenLimit | Class::Budget => Cause::RateLimit,
            Class::Slow => Cause::ClientTimeout,
            Class::Unavailable => Cause::Unavailable,
            Class::Upstream => Cause::Upstream,
            Class::UpstreamTimeout => Cause::UpstreamTimeout,
            Class::Internal => Cause::Internal,
        }
    }

    /// Why the gateway did not serve a client, where it is its accounts that stood in the way.
    pub(super) fn of_accounts(class: Class) -> Cause {
        match Cause::of_refusal(class) {
            Cause::RateLimit => Cause::UpstreamRateLimit,
            other => other,
        }
    }

    /// What an upstream's status says that tells of trouble with the account.
    pub(super) fn of_trouble(status: u16) -> Cause {
        match status {
            401 | 403 => Cause::UpstreamAuth,
            402 => Cause::UpstreamPayment,
            408 | 504 => Cause::UpstreamTimeout,
            429 => Cause::UpstreamRateLimit,
            _ => Cause::Upstream,
        }
    }

    /// Why a request failed that had got as far as an answer with this status, or whose client left; none: it did not.
    pub(super) fn of_end(ending: Ending, status: Option<u16>, has_error: bool) -> Option<Cause> {
        match (ending, status) {
            (Ending::ClientAborted, _) => Some(Cause::ClientClosed),
            (Ending::TimedOut, _) => Some(Cause::UpstreamTimeout),
            // What tells of trouble with the account is not passed on.
            (_, Some(400..)) => Some(Cause::InvalidRequest),
            _ => has_error.then_some(Cause::Stream),
        }
    }
}
