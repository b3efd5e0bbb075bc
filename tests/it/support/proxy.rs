//! Forward proxies in this process: HTTP (tunnels and plain requests) and SOCKS5, with credentials or without.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How a proxy speaks.
#[derive(Clone, Copy)]
pub enum Kind {
    Http,
    Socks5,
    /// Takes connections and says nothing.
    Silent,
}

/// A running proxy; stops with the test's runtime.
pub struct Proxy {
    port: u16,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    kind: Kind,
    credentials: Option<(String, String)>,
    connected: AtomicU64,
    targets: Mutex<Vec<String>>,
}

impl Proxy {
    /// One that lets everybody in, or only who has the credentials.
    pub async fn start(kind: Kind, credentials: Option<(&str, &str)>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            kind,
            credentials: credentials.map(|(user, password)| (user.to_owned(), password.to_owned())),
            connected: AtomicU64::new(0),
            targets: Mutex::default(),
        });
        let proxy = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = proxy.clone();
                tokio::spawn(async move { proxy.serve(client).await });
            }
        });
        let scheme = if matches!(kind, Kind::Socks5) { "socks5" } else { "http" };
        Proxy { port, scheme, shared }
    }

    /// As an account names it.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Connections that it has made for clients.
    pub fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// Where to, as the clients said it.
    pub fn targets(&self) -> Vec<String> {
        self.shared.targets.lock().unwrap().clone()
    }
}

impl Shared {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        match self.kind {
            Kind::Http => self.http(client).await,
            Kind::Socks5 => self.socks(client).await,
            Kind::Silent => client.read_to_end(&mut Vec::new()).await.map(drop),
        }
    }

    async fn http(&self, mut client: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let is_for_proxy = |line: &str| line.to_ascii_lowercase().starts_with("proxy-authorization: ");
        let given = head.lines().find(|line| is_for_proxy(line)).and_then(|line| line.split_once(": "));
        let wanted = self.credentials.as_ref().map(|(user, password)| basic(user, password));
        if wanted.is_some() && given.map(|(_, value)| value) != wanted.as_deref() {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            return client.write_all(refusal.as_bytes()).await;
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        if method == "CONNECT" {
            let upstream = self.connect(target).await?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            return relay(client, upstream).await;
        }
        let authority = target.strip_prefix("http://").expect("the whole address").split('/').next().unwrap();
        let mut upstream = self.connect(authority).await?;
        // The upstream must not see what was for the proxy.
        let lines = head.split_inclusive("\r\n").filter(|line| !is_for_proxy(line));
        upstream.write_all(lines.collect::<String>().as_bytes()).await?;
        relay(client, upstream).await
    }

    async fn socks(&self, mut client: TcpStream) -> io::Result<()> {
        assert_eq!(client.read_u8().await?, 5);
        let mut methods = vec![0; client.read_u8().await?.into()];
        client.read_exact(&mut methods).await?;
        let method = if self.credentials.is_some() { 2 } else { 0 };
        if !methods.contains(&method) {
            return client.write_all(&[5, 0xff]).await;
        }
        client.write_all(&[5, method]).await?;
        if let Some((user, password)) = &self.credentials {
            assert_eq!(client.read_u8().await?, 1);
            let given = (text(&mut client).await?, text(&mut client).await?);
            let is_right = given == (user.clone(), password.clone());
            client.write_all(&[1, u8::from(!is_right)]).await?;
            if !is_right {
                return Ok(());
            }
        }
        let mut request = [0; 4];
        client.read_exact(&mut request).await?;
        let host = match request[3] {
            1 => std::net::Ipv4Addr::from(client.read_u32().await?).to_string(),
            3 => text(&mut client).await?,
            kind => panic!("address of kind {kind}"),
        };
        let port = client.read_u16().await?;
        match self.connect(&format!("{host}:{port}")).await {
            Ok(upstream) => {
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                relay(client, upstream).await
            }
            // "Connection refused".
            Err(_) => client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        }
    }

    async fn connect(&self, target: &str) -> io::Result<TcpStream> {
        self.targets.lock().unwrap().push(target.to_owned());
        let upstream = TcpStream::connect(target).await?;
        self.connected.fetch_add(1, Ordering::SeqCst);
        Ok(upstream)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn text(client: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

async fn relay(mut client: TcpStream, mut upstream: TcpStream) -> io::Result<()> {
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}
