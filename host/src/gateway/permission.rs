//! What a client's key may be used for, apart from models.

use http::HeaderMap;

use super::{
    dialect::Dialect,
    error::{Class, Problem},
};
use crate::keys::{ClientKey, ClientKind};

/// Refuses a dialect that the key may not speak, and a kind of client that may not use it.
pub(super) fn check(key: &ClientKey, dialect: Dialect, headers: &HeaderMap) -> Result<(), Problem> {
    if !key.may_speak(dialect.name()) {
        let message = format!("the api key may not be used in the dialect {}", dialect.name());
        return Err(Problem::new(Class::Forbidden, message));
    }
    if key.is_for_some_clients() {
        let kind = ClientKind::of(headers);
        if !key.may_be_used_by(kind) {
            let message = format!("the api key may not be used by this kind of client ({})", kind.name());
            return Err(Problem::new(Class::Forbidden, message));
        }
    }
    Ok(())
}
