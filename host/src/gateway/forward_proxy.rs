//! A proxy on the way to an upstream.

use std::{fmt, future::ready, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{ServiceExt as _, service_fn};

use super::{
    dial::{DialError, causes},
    limits::PROXY_CREDENTIAL_BYTES,
};
use crate::secret::Secret;

/// A proxy as an account's owner describes it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ForwardProxy {
    /// `http://HOST:PORT` or `socks5://HOST:PORT`.
    pub url: String,
    /// User and password, if it wants them.
    pub credentials: Option<(String, Secret)>,
}

impl fmt::Debug for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What is wrong with the address of a proxy. The address itself is not quoted: people put passwords into it.
pub fn check_proxy_url(text: &str) -> Result<(), &'static str> {
    const LIKE: &str =
        "is no URL of a proxy; write it like `http://10.0.0.1:3128` or `socks5://10.0.0.1:1080`";
    let url: Uri = text.parse().map_err(|_| LIKE)?;
    let authority = url.authority().filter(|authority| !authority.host().is_empty()).ok_or(LIKE)?;
    match url.scheme_str() {
        _ if authority.as_str().contains('@') => {
            Err("must not carry a user or password; use `proxy_user` and `proxy_password`")
        }
        Some("http" | "socks5" | "socks5h") if url.port_u16().is_none() => Err("must name its port"),
        Some("http" | "socks5" | "socks5h") if matches!(url.path(), "" | "/") && url.query().is_none() => {
            Ok(())
        }
        Some("http" | "socks5" | "socks5h") => Err("must end with its port"),
        _ => Err("must start with `http://` or `socks5://`"),
    }
}

/// What is wrong with a proxy's user or password.
pub fn check_proxy_credential(text: &str) -> Result<(), &'static str> {
    let plain = !text.chars().any(char::is_control);
    match (1..=PROXY_CREDENTIAL_BYTES).contains(&text.len()) && plain {
        true => Ok(()),
        false => Err("must have 1 to 255 bytes and no control characters"),
    }
}

impl ForwardProxy {
    /// Whether requests to an upstream in plain HTTP are given to it as they are, rather than through a tunnel.
    pub(super) fn relays(&self) -> bool {
        self.url.starts_with("http://")
    }

    /// What it is given with each request that it relays.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let encoded = STANDARD.encode(format!("{user}:{}", password.expose()));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Opens a connection to the proxy, or through it to an upstream; names are resolved by the proxy.
    pub(super) async fn connect(
        &self,
        connector: HttpConnector,
        target: Uri,
    ) -> Result<TokioIo<TcpStream>, DialError> {
        let proxy: Uri = self.url.parse().map_err(|_| DialError::new("its proxy has no address"))?;
        let opened = connector.oneshot(proxy.clone()).await.map_err(|error| at_proxy(&error))?;
        if self.relays() && target.scheme_str() == Some("http") {
            return Ok(opened);
        }
        // A connector that has connected already: its own errors would not come through the handshake's.
        let mut opened = Some(opened);
        let connector = service_fn(move |_: Uri| {
            ready(opened.take().ok_or(io::Error::from(io::ErrorKind::NotConnected)))
        });
        let target = with_port(target)?;
        match (self.relays(), &self.credentials) {
            (true, None) => {
                Tunnel::new(proxy, connector).oneshot(target).await.map_err(|error| at_proxy(&error))
            }
            (true, Some(_)) => {
                let value =
                    self.authorization().ok_or_else(|| DialError::new("its proxy has no credentials"))?;
                let tunnel = Tunnel::new(proxy, connector).with_auth(value);
                tunnel.oneshot(target).await.map_err(|error| at_proxy(&error))
            }
            (false, None) => {
                SocksV5::new(proxy, connector).oneshot(target).await.map_err(|error| at_proxy(&error))
            }
            (false, Some((user, password))) => {
                let socks = SocksV5::new(proxy, connector);
                let socks = socks.with_auth(user.clone(), password.expose().to_owned());
                socks.oneshot(target).await.map_err(|error| at_proxy(&error))
            }
        }
    }
}

fn at_proxy(error: &dyn std::error::Error) -> DialError {
    DialError::new(format!("at its proxy: {}", causes(error)))
}

/// The address with the port that its scheme implies, which a proxy does not know.
fn with_port(target: Uri) -> Result<Uri, DialError> {
    let unusable = |_| DialError::new("the upstream's address cannot be given to a proxy");
    if target.port().is_some() {
        return Ok(target);
    }
    let mut parts = target.into_parts();
    let port = if parts.scheme.as_ref().is_some_and(|scheme| scheme.as_str() == "http") { 80 } else { 443 };
    if let Some(authority) = parts.authority.take() {
        parts.authority = Some(format!("{authority}:{port}").parse().map_err(unusable)?);
    }
    Uri::from_parts(parts).map_err(|_| DialError::new("the upstream's address cannot be given to a proxy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_http_or_socks5_with_a_port_and_nothing_else() {
        for good in ["http://127.0.0.1:3128", "http://proxy:80/", "socks5://[::1]:1080", "socks5h://h:1"] {
            assert_eq!(check_proxy_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks4://h:1",
            "http://proxy",
            "http://:1",
            "http://u:p@h:1",
            "http://h:1/path",
            "http://h:1?q",
            "socks5://h",
        ] {
            assert!(check_proxy_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_gets_the_port_of_its_scheme() {
        for (target, expected) in [
            ("http://h/x", "http://h:80/x"),
            ("https://h/", "https://h:443/"),
            ("https://[::1]/", "https://[::1]:443/"),
            ("http://h:8080/", "http://h:8080/"),
        ] {
            assert_eq!(with_port(target.parse().unwrap()).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn credentials_are_encoded_as_rfc_7617_has_it_and_never_shown() {
        let credentials = Some(("Aladdin".to_owned(), Secret::new("open sesame")));
        let proxy = ForwardProxy { url: "http://h:1".to_owned(), credentials };
        assert_eq!(proxy.authorization().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{proxy:?}").contains("sesame"));
    }
}
