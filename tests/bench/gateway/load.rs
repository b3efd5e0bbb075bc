//! Chat requests over a fixed number of kept connections, as cheap for this process as can be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One target's load.
pub struct Load {
    address: String,
    request: Vec<u8>,
    connections: usize,
}

/// What one measurement saw.
#[derive(Default)]
pub struct Sample {
    /// Latencies in µs, sorted.
    latencies: Vec<u32>,
    length: Duration,
    /// CPU time of the target's process.
    pub cpu: Duration,
}

impl Load {
    /// Chat requests to `url` with bearer `key`.
    pub fn new(url: &str, key: &str, connections: usize) -> Load {
        let address = url.trim_start_matches("http://").to_owned();
        let body = r#"{"model":"gpt-test","max_tokens":64,"messages":[{"role":"system","content":"You answer in one short sentence, politely and to the point."},{"role":"user","content":"What is the capital of France, and how many people live there?"}]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\nuser-agent: tollgate-bench\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Load { address, request: request.into_bytes(), connections }
    }

    /// Sends requests for `length`; every answer must be a 200.
    pub async fn run(&self, length: Duration) -> Result<Sample> {
        let start = Instant::now();
        let until = start + length;
        let local = tokio::task::LocalSet::new();
        let mut tasks = Vec::new();
        for _ in 0..self.connections {
            let (address, request) = (self.address.clone(), self.request.clone());
            tasks.push(local.spawn_local(async move { one_connection(&address, &request, until).await }));
        }
        let latencies = local.run_until(async {
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await??);
            }
            anyhow::Ok(all)
        });
        let mut latencies = latencies.await?;
        latencies.sort_unstable();
        Ok(Sample { latencies, length: start.elapsed(), cpu: Duration::ZERO })
    }
}

impl Sample {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.length.as_secs_f64()
    }

    /// A percentile of the latency, in µs.
    pub fn percentile(&self, share: f64) -> f64 {
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(place).copied().map_or(f64::NAN, f64::from)
    }

    /// CPU time of the target for one request, in µs.
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }
}

async fn one_connection(address: &str, request: &[u8], until: Instant) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(16 * 1024));
    while Instant::now() < until {
        let sent = Instant::now();
        stream.write_all(request).await?;
        read_answer(&mut stream, &mut buffer).await?;
        latencies.push(sent.elapsed().as_micros() as u32);
    }
    Ok(latencies)
}

/// Reads one answer with a content-length.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the connection was closed");
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                bail!("not a 200: {head}");
            }
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.context("no content-length")?.trim().parse()?;
            while buffer.len() < end + 4 + length {
                if stream.read_buf(buffer).await? == 0 {
                    bail!("the connection was closed in an answer");
                }
            }
            return Ok(());
        }
    }
}
