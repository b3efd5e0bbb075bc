//! `[http]`, under which route a plugin answers requests, and `[grants.http]`, to which hosts it may send some.

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

/// How far a grant of a host goes; a later one further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// To addresses of the internet.
    Public,
    /// To any address, also of this machine and the networks around it.
    Private,
}

impl Reach {
    /// As a manifest has it.
    pub fn name(self) -> &'static str {
        match self {
            Reach::Public => "public",
            Reach::Private => "private",
        }
    }
}

/// Refuses what is no host, with or without a port, as requests name it.
pub(super) fn check_host(host: &str) -> Result<(), ManifestError> {
    let authority = host.parse::<::http::uri::Authority>();
    let plain = authority.is_ok_and(|authority| !authority.as_str().contains('@'));
    if plain && host.len() <= ROUTE_BYTES && !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(ManifestError(format!(
        "grants.http: {host:?} is no host; give a name or an address in small letters, and a port where it is not 80 \
         for http or 443 for https, such as \"api.example.com\" or \"127.0.0.1:8000\""
    )))
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
    fn hosts_are_granted_as_requests_name_them() {
        for good in ["api.example.com", "api.example.com:8443", "127.0.0.1:80", "[::1]:80", "localhost"] {
            assert!(check_host(good).is_ok(), "{good}");
        }
        for wrong in ["", "API.example.com", "me@example.com", "https://example.com", "a b", "example.com/x"]
        {
            assert!(check_host(wrong).is_err(), "{wrong}");
        }
    }

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
