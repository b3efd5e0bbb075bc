//! Why a request is not served, before any dialect gives it its shape.
//!
//! This is the one place that gives failures an HTTP status; a dialect that has another for one of them says so.

use std::borrow::Cow;

use http::StatusCode;

/// The kind of a problem; a dialect turns it into its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The request cannot be understood or lacks something.
    Invalid,
    /// No key, or one that is not valid.
    Key,
    /// The client may not use the service now, and waiting does not help.
    Forbidden,
    /// No such model for this client.
    Model,
    /// No such path.
    Path,
    /// The path exists, the method does not.
    Method,
    /// The body is larger than allowed.
    TooLarge,
    /// The body did not arrive in time.
    Slow,
    /// A limit on requests.
    RequestLimit,
    /// A limit on tokens.
    TokenLimit,
    /// A budget is used up.
    Budget,
    /// The gateway cannot take the request at the moment.
    Unavailable,
    /// The upstream failed.
    Upstream,
    /// The upstream took too long.
    UpstreamTimeout,
    /// A fault of the gateway.
    Internal,
}

/// A refusal or failure, as far as a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What kind it is.
    pub(super) class: Class,
    /// A sentence for people; never a secret.
    pub(super) message: Cow<'static, str>,
    /// The parameter at fault, if it is one.
    pub(super) param: Option<&'static str>,
    /// Milliseconds until trying again makes sense.
    pub(super) retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem with nothing but a message.
    pub(super) fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Problem {
        Problem { class, message: message.into(), param: None, retry_after_ms: None }
    }

    /// The same, naming the parameter at fault.
    pub(super) fn of(class: Class, param: &'static str, message: impl Into<Cow<'static, str>>) -> Problem {
        Problem { param: Some(param), ..Problem::new(class, message) }
    }

    /// The same, to be tried again after a while.
    pub(super) fn after(self, retry_after_ms: Option<u64>) -> Problem {
        Problem { retry_after_ms, ..self }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self.class {
            Class::Invalid => StatusCode::BAD_REQUEST,
            Class::Key => StatusCode::UNAUTHORIZED,
            Class::Forbidden => StatusCode::FORBIDDEN,
            Class::Model | Class::Path => StatusCode::NOT_FOUND,
            Class::Method => StatusCode::METHOD_NOT_ALLOWED,
            Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Slow => StatusCode::REQUEST_TIMEOUT,
            Class::RequestLimit | Class::TokenLimit | Class::Budget => StatusCode::TOO_MANY_REQUESTS,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Upstream => StatusCode::BAD_GATEWAY,
            Class::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whole seconds for `retry-after`: rounded up and at least one, so that a client that obeys is not early.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_ms.map(|ms| ms.div_ceil(1_000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            let problem = Problem::new(Class::RequestLimit, "later").after(Some(ms));
            assert_eq!(problem.retry_after_seconds(), Some(seconds), "{ms} ms");
        }
    }
}
