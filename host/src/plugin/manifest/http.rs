//! `[http]`: under which route a plugin answers requests.

use serde::Deserialize;

use super::ManifestError;
use crate::plugin::limits::ROUTE_BYTES;

/// Where a plugin that exports `wasi:http/incoming-handler` is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Http {
    /// Paths that start like this are its own, such as `/hello/`.
    pub route: String,
    /// Anybody may ask, and not only who has a client key.
    #[serde(default)]
    pub public: bool,
}

/// What the host itself has paths under.
const TAKEN: [&str; 8] =
    ["/v1/", "/v1beta/", "/admin/", "/api/", "/healthz/", "/readyz/", "/metrics/", "/openapi.json/"];

impl Http {
    pub(super) fn check(self) -> Result<Http, ManifestError> {
        let wrong = |why: &str| Err(ManifestError(format!("http.route = {:?}: {why}", self.route)));
        let parts = self.route.strip_prefix('/').and_then(|route| route.strip_suffix('/'));
        let Some(parts) = parts else {
            return wrong("it must begin and end with a slash, such as \"/hello/\"");
        };
        if self.route.len() > ROUTE_BYTES {
            return wrong(&format!("at most {ROUTE_BYTES} bytes are allowed"));
        }
        if !parts.split('/').all(is_plain) {
            return wrong("between slashes a-z, A-Z, 0-9, '-', '_', '~' and '.' are allowed");
        }
        match TAKEN.into_iter().find(|taken| self.route.starts_with(taken)) {
            Some(taken) => wrong(&format!("the server's own paths are under {taken}")),
            None => Ok(self),
        }
    }
}

/// Whether a part of a path is written in one way only.
fn is_plain(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_plain_path_that_nobody_else_has() {
        let check = |route: &str| Http { route: route.to_owned(), public: false }.check();
        for good in ["/hello/", "/a/b.c/d~e_f-9/", "/v2/", "/apis/"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = format!("/{}/", "x".repeat(ROUTE_BYTES));
        let wrong =
            ["", "/", "//", "/hello", "hello/", "/a//b/", "/../", "/a/./", "/%41/", "/ä/", "/a b/", &long];
        for wrong in wrong {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert!(check("/v1/mine/").unwrap_err().to_string().contains("/v1/"));
        assert!(check("/admin/").is_err());
    }
}
