//! An upstream that does to its connections whatever an upstream can do wrong, drawn from a seed.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What is wrong with an answer, and how often that is drawn.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Late,
    NoHead,
    HalfHead,
    GarbageHead,
    EndlessHead,
    EndlessInformation,
    Upgrade,
    TwoLengths,
    HalfBody,
    TooLong,
    TooShort,
    BadChunk,
    Trickle,
    BrokenGzip,
    Bomb,
    CutEvent,
    EndlessEvent,
    NoEnd,
    Refuse(u16),
    EndlessRefusal,
    Nothing,
    Silence,
}

const FAULTS: [(Fault, u32); 27] = [
    (Fault::None, 400),
    (Fault::Late, 60),
    (Fault::NoHead, 40),
    (Fault::HalfHead, 40),
    (Fault::GarbageHead, 30),
    (Fault::EndlessHead, 4),
    (Fault::EndlessInformation, 1),
    (Fault::Upgrade, 10),
    (Fault::TwoLengths, 20),
    (Fault::HalfBody, 60),
    (Fault::TooLong, 8),
    (Fault::TooShort, 30),
    (Fault::BadChunk, 30),
    (Fault::Trickle, 20),
    (Fault::BrokenGzip, 40),
    (Fault::Bomb, 2),
    (Fault::CutEvent, 50),
    (Fault::EndlessEvent, 4),
    (Fault::NoEnd, 40),
    (Fault::Refuse(429), 60),
    (Fault::Refuse(500), 10),
    (Fault::Refuse(503), 10),
    (Fault::Refuse(529), 10),
    (Fault::Refuse(400), 10),
    (Fault::EndlessRefusal, 4),
    (Fault::Nothing, 10),
    (Fault::Silence, 4),
];

/// Every so many requests a storm of refusals begins, and how long it lasts.
const STORM_EVERY: u64 = 500;
const STORM: u64 = 60;

const PLAIN: &str =
    r#"{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#;
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello \"}}]}\n\n";
const LAST: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Bytes of what should have an end and has none; the other side must have enough of it long before.
const ENDLESS: usize = 64 << 20;

#[derive(Clone)]
pub struct Wild {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    random: Mutex<fastrand::Rng>,
    seen: AtomicU64,
    /// Connections that are open.
    open: AtomicU64,
    /// From then on every answer is a stream that stops in the middle until it may end.
    holds: AtomicBool,
    held: AtomicU64,
    ended: Notify,
}

impl Wild {
    pub async fn start(seed: u64) -> Wild {
        let shared = Arc::new(Shared {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            seen: AtomicU64::new(0),
            open: AtomicU64::new(0),
            holds: AtomicBool::new(false),
            held: AtomicU64::new(0),
            ended: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let own = shared.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = own.clone();
                shared.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // The other side may close whenever it has had enough.
                    let _ = shared.serve(socket).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Wild { url, shared }
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Holds all answers from now on.
    pub fn hold(&self) {
        self.shared.holds.store(true, Ordering::SeqCst);
    }

    /// Answers that are held.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Ends the answers that are held.
    pub fn let_go(&self) {
        self.shared.holds.store(false, Ordering::SeqCst);
        self.shared.ended.notify_waiters();
    }
}

/// What becomes of a connection after an answer.
enum Then {
    Next,
    Close,
    Reset,
}

impl Shared {
    async fn serve(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut kept = Vec::new();
        while let Some(stream) = request(&mut socket, &mut kept).await? {
            let then = match self.holds.load(Ordering::SeqCst) {
                true => self.held_answer(&mut socket).await?,
                false => answer(&mut socket, self.draw(), stream).await?,
            };
            match then {
                Then::Next => {}
                Then::Close if self.chance() => return Ok(()),
                Then::Close | Then::Reset => return socket.set_zero_linger(),
            }
        }
        Ok(())
    }

    fn chance(&self) -> bool {
        self.random.lock().unwrap().bool()
    }

    fn draw(&self) -> Fault {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number % STORM_EVERY >= STORM_EVERY - STORM {
            return Fault::Refuse(429);
        }
        let all: u32 = FAULTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.lock().unwrap().u32(..all);
        let found = FAULTS.iter().find(|(_, weight)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        found.unwrap().0
    }

    async fn held_answer(&self, socket: &mut TcpStream) -> io::Result<Then> {
        let ended = self.ended.notified();
        socket.write_all(format!("{STREAM_HEAD}{}", chunk(EVENT)).as_bytes()).await?;
        self.held.fetch_add(1, Ordering::SeqCst);
        ended.await;
        self.held.fetch_sub(1, Ordering::SeqCst);
        socket.write_all(format!("{}0\r\n\r\n", chunk(LAST)).as_bytes()).await?;
        Ok(Then::Next)
    }
}

/// Reads a request; whether it asks for a stream. None: there is no further one.
async fn request(socket: &mut TcpStream, kept: &mut Vec<u8>) -> io::Result<Option<bool>> {
    loop {
        if let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&kept[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0_usize);
            if kept.len() >= whole {
                let stream = String::from_utf8_lossy(&kept[..whole]).contains("\"stream\":true");
                kept.drain(..whole);
                return Ok(Some(stream));
            }
        }
        if socket.read_buf(kept).await? == 0 {
            return Ok(None);
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn plain(length: usize, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
}

fn whole(stream: bool) -> String {
    match stream {
        true => format!("{STREAM_HEAD}{}{}0\r\n\r\n", chunk(EVENT), chunk(LAST)),
        false => plain(PLAIN.len(), "", PLAIN),
    }
}

async fn answer(socket: &mut TcpStream, fault: Fault, stream: bool) -> io::Result<Then> {
    let (text, then) = match fault {
        Fault::None => (whole(stream), Then::Next),
        Fault::Late => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            (whole(stream), Then::Next)
        }
        Fault::NoHead => (String::new(), Then::Close),
        Fault::HalfHead => ("HTTP/1.1 200 OK\r\ncontent-ty".to_owned(), Then::Close),
        Fault::GarbageHead => ("\0\u{1}\u{2}SSH-2.0-no\r\n\r\n\r\n".to_owned(), Then::Close),
        Fault::EndlessHead => {
            endless(socket, "HTTP/1.1 200 OK\r\n", &format!("x-more: {}\r\n", "y".repeat(1_000))).await?;
            return Ok(Then::Close);
        }
        Fault::EndlessInformation => {
            endless(socket, "", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await?;
            return Ok(Then::Close);
        }
        Fault::Upgrade => (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nxyz".to_owned(),
            Then::Close,
        ),
        Fault::TwoLengths => (plain(PLAIN.len(), "content-length: 3\r\n", PLAIN), Then::Close),
        Fault::HalfBody if stream => (format!("{STREAM_HEAD}{}", &chunk(EVENT)[..20]), Then::Close),
        Fault::HalfBody => (plain(PLAIN.len(), "", &PLAIN[..40]), Then::Close),
        // It waits for more until it has waited too long.
        Fault::TooLong => {
            socket.write_all(plain(PLAIN.len() + 100, "", PLAIN).as_bytes()).await?;
            return gone(socket).await;
        }
        Fault::TooShort => (plain(PLAIN.len() - 30, "", PLAIN), Then::Next),
        Fault::BadChunk => (format!("{STREAM_HEAD}{}nonsense\r\n{EVENT}", chunk(EVENT)), Then::Close),
        Fault::Trickle => {
            for bytes in whole(stream).as_bytes().chunks(8) {
                socket.write_all(bytes).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (String::new(), Then::Next)
        }
        Fault::BrokenGzip => {
            // A head of gzip, and then nothing that could be one.
            socket.write_all(plain(40, "content-encoding: gzip\r\n", "").as_bytes()).await?;
            socket.write_all(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff\xff").await?;
            (String::new(), Then::Close)
        }
        Fault::Bomb => {
            let head = plain(BOMB.len(), "content-encoding: gzip\r\n", "");
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(&BOMB).await?;
            (String::new(), Then::Next)
        }
        Fault::CutEvent => {
            let cut = &EVENT[..EVENT.len() / 2];
            (format!("{STREAM_HEAD}{}{}0\r\n\r\n", chunk(EVENT), chunk(cut)), Then::Next)
        }
        Fault::EndlessEvent => {
            socket.write_all(STREAM_HEAD.as_bytes()).await?;
            // Longer than an event that is kept.
            for _ in 0..40 {
                socket.write_all(chunk(&"data: x".repeat(8_000)).as_bytes()).await?;
            }
            ("0\r\n\r\n".to_owned(), Then::Next)
        }
        Fault::NoEnd => (format!("{STREAM_HEAD}{}{}", chunk(EVENT), chunk(EVENT)), Then::Reset),
        Fault::Refuse(status) => {
            let body = r#"{"error":{"message":"told to refuse"}}"#;
            let head =
                format!("HTTP/1.1 {status} No\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n", body.len());
            (head + body, Then::Next)
        }
        Fault::EndlessRefusal => {
            let head = "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n";
            endless(socket, head, &chunk(&"no".repeat(4_000))).await?;
            return Ok(Then::Close);
        }
        Fault::Nothing => ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), Then::Next),
        Fault::Silence => return gone(socket).await,
    };
    socket.write_all(text.as_bytes()).await?;
    Ok(then)
}

/// Sends a piece again and again, until the other side has enough.
async fn endless(socket: &mut TcpStream, head: &str, piece: &str) -> io::Result<()> {
    socket.write_all(head.as_bytes()).await?;
    for _ in 0..ENDLESS / piece.len() {
        socket.write_all(piece.as_bytes()).await?;
    }
    Ok(())
}

/// Waits until the other side has closed.
async fn gone(socket: &mut TcpStream) -> io::Result<Then> {
    let mut buffer = [0; 64];
    while socket.read(&mut buffer).await? > 0 {}
    Ok(Then::Close)
}

/// What gzip makes of 20 MiB: a thousandth of it.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 20 << 20]).unwrap();
    encoder.finish().unwrap()
});
