//! Why a plugin brought no answer.

use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::incoming::Fault;
use crate::plugin::limits::TEXT_BYTES;
use crate::plugin::{CallError, cut};

/// Why a plugin brought no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Too many requests are with it, or with all plugins together.
    #[error("the plugin has as many requests as it may have")]
    Busy,
    /// It trapped, or ran into a limit.
    #[error("the plugin failed: it {0}")]
    Failed(CallError),
    /// It used up its time.
    #[error("the plugin did not answer in time")]
    Late,
    /// It ended without an answer.
    #[error("the plugin ended without an answer")]
    Nothing,
    /// It answered with one of the standard's errors.
    #[error("the plugin answered with an error: {0}")]
    Refused(String),
    /// The client sent more than a plugin takes.
    #[error("the request's body has more bytes than a plugin takes")]
    TooLarge,
    /// The client stopped sending.
    #[error("the request's body did not come in time")]
    Slow,
    /// The client left in mid-body, or sent no good one.
    #[error("the request's body broke off or is malformed")]
    Broken,
}

impl Unanswered {
    /// For an error of the standard's, some of which hold texts of any length.
    pub(super) fn refused(mut code: ErrorCode) -> Unanswered {
        let text = match &mut code {
            ErrorCode::DnsError(about) => about.rcode.as_mut(),
            ErrorCode::TlsAlertReceived(about) => about.alert_message.as_mut(),
            ErrorCode::HttpRequestHeaderSize(about) => {
                about.as_mut().and_then(|about| about.field_name.as_mut())
            }
            ErrorCode::HttpRequestTrailerSize(about)
            | ErrorCode::HttpResponseHeaderSize(about)
            | ErrorCode::HttpResponseTrailerSize(about) => about.field_name.as_mut(),
            ErrorCode::HttpResponseTransferCoding(text)
            | ErrorCode::HttpResponseContentCoding(text)
            | ErrorCode::InternalError(text) => text.as_mut(),
            _ => None,
        };
        if let Some(text) = text {
            *text = cut(std::mem::take(text), TEXT_BYTES);
        }
        // Escaped it may be longer again.
        Unanswered::Refused(cut(format!("{code:?}"), TEXT_BYTES))
    }
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Unanswered {
        match fault {
            Fault::TooLarge => Unanswered::TooLarge,
            Fault::Slow => Unanswered::Slow,
            Fault::Broken => Unanswered::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_any_length_is_told_in_so_many_bytes() {
        for letter in ["x", "\u{1}"] {
            let told = Unanswered::refused(ErrorCode::InternalError(Some(letter.repeat(1 << 20))));
            let Unanswered::Refused(text) = told else { panic!("{told}") };
            assert!(
                text.starts_with("ErrorCode::InternalError(Some(\"") && text.len() <= TEXT_BYTES,
                "{text}"
            );
        }
    }
}
