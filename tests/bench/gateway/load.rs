//! Chat requests over a fixed number of kept connections, as cheap for this process as can be.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::answers;
use crate::options::Workload;
use crate::sample::Sample;

/// One target's load.
pub struct Load {
    address: String,
    /// One for each key.
    requests: Rc<[Vec<u8>]>,
    connections: usize,
    /// Time between two requests of all connections together; none: each sends as soon as it is answered.
    pace: Option<Duration>,
}

impl Load {
    /// Chat requests to `url` with these bearer keys in turn, and more lines for their heads.
    pub fn new<K: AsRef<str>>(
        url: &str,
        keys: &[K],
        headers: &str,
        workload: Workload,
        connections: usize,
    ) -> Load {
        let address = url.trim_start_matches("http://").to_owned();
        let body = answers::request(workload);
        let request = |key: &K| {
            let key = key.as_ref();
            format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\nuser-agent: tollgate-bench\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
            )
            .into_bytes()
        };
        Load { requests: keys.iter().map(request).collect(), address, connections, pace: None }
    }

    /// The same, at so many requests a second.
    pub fn at(self, rate: f64) -> Load {
        Load { pace: Some(Duration::from_secs_f64(1.0 / rate)), ..self }
    }

    /// Sends requests for `length`; every answer must be a 200.
    pub async fn run(&self, length: Duration) -> Result<Sample> {
        let start = Instant::now();
        let until = start + length;
        let local = tokio::task::LocalSet::new();
        let mut tasks = Vec::new();
        let mut senders = Vec::new();
        for first in 0..self.connections {
            let (address, requests, step) = (self.address.clone(), self.requests.clone(), self.connections);
            let due = self.pace.map(|_| {
                let (sender, due) = mpsc::unbounded_channel();
                senders.push(sender);
                due
            });
            tasks.push(local.spawn_local(async move {
                let in_turn = requests.iter().cycle().skip(first % requests.len()).step_by(step);
                one_connection(&address, in_turn, until, due).await
            }));
        }
        if let Some(pace) = self.pace {
            std::thread::spawn(move || call_in_turn(&senders, pace, start, until));
        }
        let latencies = local.run_until(async {
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await??);
            }
            anyhow::Ok(all)
        });
        Ok(Sample::new(latencies.await?, start.elapsed()))
    }
}

/// Tells each connection in turn when its next request is due. A thread, since the timers of tokio are a millisecond apart:
/// whatever was due in it would come at once.
fn call_in_turn(connections: &[UnboundedSender<Instant>], pace: Duration, start: Instant, until: Instant) {
    let mut due = start;
    for connection in connections.iter().cycle() {
        due += pace;
        if due >= until {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if connection.send(due).is_err() {
            return;
        }
    }
}

async fn one_connection<'a>(
    address: &str,
    mut requests: impl Iterator<Item = &'a Vec<u8>>,
    until: Instant,
    mut due: Option<UnboundedReceiver<Instant>>,
) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(16 * 1024));
    while Instant::now() < until {
        let request = requests.next().context("no key")?;
        let sent = match &mut due {
            None => Instant::now(),
            Some(due) => match due.try_recv() {
                // Whoever is late because of the answer before is late by the fault of who gave it.
                Ok(due) => due,
                Err(_) => match due.recv().await {
                    Some(_) => Instant::now(),
                    None => break,
                },
            },
        };
        stream.write_all(request).await?;
        read_answer(&mut stream, &mut buffer).await?;
        latencies.push(sent.elapsed().as_micros() as u32);
    }
    Ok(latencies)
}

/// How the end of an answer is known.
enum End {
    /// By its length, head included.
    At(usize),
    /// By the last, empty chunk.
    Chunk,
}

impl End {
    fn reached(&self, buffer: &[u8]) -> bool {
        match self {
            End::At(length) => buffer.len() >= *length,
            End::Chunk => buffer.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    let mut end = None;
    while !end.as_ref().is_some_and(|end: &End| end.reached(buffer)) {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the connection was closed");
        }
        if end.is_none() {
            end = end_of(buffer)?;
        }
    }
    Ok(())
}

/// Once the head is there.
fn end_of(buffer: &[u8]) -> Result<Option<End>> {
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        bail!("not a 200: {text}");
    }
    if text.contains("\r\ntransfer-encoding: chunked") {
        return Ok(Some(End::Chunk));
    }
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("neither a content-length nor chunks")?.trim().parse()?;
    Ok(Some(End::At(head + 4 + length)))
}
