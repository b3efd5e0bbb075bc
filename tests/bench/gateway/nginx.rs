//! nginx with limit_req, as Debian packs it: what a gateway with one policy written in C costs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, free_address};

/// Time to start; it takes some milliseconds.
const START: Duration = Duration::from_secs(5);

/// A running nginx; its workers end with it.
pub struct Nginx {
    process: Process,
    _home: tempfile::TempDir,
}

impl Nginx {
    /// Starts it in front of `upstream`; none if it is not installed.
    pub fn start(upstream: &str) -> Result<Option<Nginx>> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let home = tempfile::tempdir()?;
        let address = free_address()?;
        let config = home.path().join("nginx.conf");
        std::fs::write(&config, configuration(home.path(), &address.to_string(), upstream)?)?;
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(home.path()).arg("-c").arg(&config);
        let process = Process::started(address, command, START, "nginx")?;
        Ok(Some(Nginx { process, _home: home }))
    }

    /// The master's process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, the master would leave its workers behind.
        self.process.terminate();
    }
}

/// A limit for each client key that is never met, kept connections on both sides, answers streamed, an access log.
fn configuration(home: &Path, address: &str, upstream: &str) -> Result<String> {
    let home = home.to_str().context("the temporary directory's name is not UTF-8")?;
    let upstream = upstream.trim_start_matches("http://");
    // Workers of root's nginx are another user, who may not write into the home.
    let user =
        if Path::new("/proc/self").metadata().is_ok_and(|own| is_root(&own)) { "user root;" } else { "" };
    Ok(format!(
        "{user}
daemon off;
worker_processes auto;
pid {home}/pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    access_log {home}/access.log combined buffer=64k;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    limit_req_zone $http_authorization zone=clients:10m rate=1000000r/s;
    upstream bench {{
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            limit_req zone=clients burst=1000000 nodelay;
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    ))
}

fn is_root(own: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(own) == 0
}
