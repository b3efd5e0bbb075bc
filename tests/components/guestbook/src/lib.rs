//! A guestbook that knows nothing of Tollgate: it is written against the interfaces of WASI alone.
//!
//! `GET …/entries` lists what was written, `POST …/entries` writes its body, `POST …/echo` sends its body back as it comes,
//! `GET …/who` tells what it sees of whoever asks, `GET …/denied` asks for a store that nobody grants, `POST …/trap` begins an answer and traps.

use std::io::{Read, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use wasi::config::store as config;
use wasi::keyvalue::{atomics, batch, store};
use wasi::logging::logging::{Level, log};

wit_bindgen::generate!({
    path: ["../../../wit/wasi-keyvalue", "../../../wit/wasi-config", "../../../wit/wasi-logging"],
    inline: "
        package test:guestbook;
        world guestbook {
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
        }
    ",
    generate_all,
});

wasip2::http::proxy::export!(Guestbook);

struct Guestbook;

impl Guest for Guestbook {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        match (request.method(), path) {
            (Method::Get, "entries") => whole(answer, list()),
            (Method::Post, "entries") => whole(answer, write(&request)),
            (Method::Get, "who") => whole(answer, Ok(who(&request))),
            (Method::Get, "denied") => {
                whole(answer, store::open("quota").map(|_| String::new()).map_err(told))
            }
            (Method::Post, "echo") => echo(&request, answer),
            (Method::Post, "trap") => {
                let body = head(answer, 200);
                send(&body, b"so far so good");
                panic!("as asked");
            }
            _ => drop(OutgoingBody::finish(head(answer, 404), None)),
        }
    }
}

/// The greeting of whoever runs it, how often the list was asked for, and the entries.
fn list() -> Result<String, String> {
    let bucket = store::open("guestbook").map_err(told)?;
    let visits = atomics::increment(&bucket, "visits", 1).map_err(told)?;
    let greeting = config::get("greeting").map_err(|error| format!("{error:?}"))?;
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor.as_deref()).map_err(told)?;
        keys.extend(page.keys.into_iter().filter(|key| key.starts_with("entry/")));
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut text = format!("{}, visitor {visits}\n", greeting.unwrap_or_default());
    for (_, value) in batch::get_many(&bucket, &keys).map_err(told)? {
        text.push_str(&String::from_utf8_lossy(&value.unwrap_or_default()));
        text.push('\n');
    }
    Ok(text)
}

/// The headers that tell who asks.
fn who(request: &IncomingRequest) -> String {
    let about = ["authorization", "x-api-key", "tollgate-client"];
    let entries = request.headers().entries().into_iter();
    let entries = entries.filter(|(name, _)| about.contains(&name.as_str()));
    entries.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(&value))).collect()
}

/// Writes an entry under the next number, which it takes by compare and swap.
fn write(request: &IncomingRequest) -> Result<String, String> {
    let body = request.consume().map_err(|()| "the body is gone")?;
    let mut entry = Vec::new();
    let stream = body.stream().map_err(|()| "the stream is gone")?;
    stream.take(10_000).read_to_end(&mut entry).map_err(|error| error.to_string())?;
    let bucket = store::open("guestbook").map_err(told)?;
    let mut cas = atomics::Cas::new(&bucket, "last").map_err(told)?;
    let number = loop {
        let last = cas.current().map_err(told)?.unwrap_or_default();
        let next = String::from_utf8_lossy(&last).parse::<u32>().unwrap_or_default() + 1;
        match atomics::swap(cas, next.to_string().as_bytes()) {
            Ok(()) => break next,
            Err(atomics::CasError::CasFailed(fresh)) => cas = fresh,
            Err(atomics::CasError::StoreError(error)) => return Err(told(error)),
        }
    };
    bucket.set(&format!("entry/{number:06}"), &entry).map_err(told)?;
    log(Level::Info, "guestbook", &format!("entry {number}"));
    Ok(format!("{number}\n"))
}

fn echo(request: &IncomingRequest, answer: ResponseOutparam) {
    let (Ok(body), out) = (request.consume(), head(answer, 200)) else { return };
    if let (Ok(mut from), Ok(mut to)) = (body.stream(), out.write()) {
        let mut piece = [0; 8192];
        while let Ok(length) = Read::read(&mut from, &mut piece) {
            if length == 0 || to.write_all(&piece[..length]).and_then(|()| Write::flush(&mut to)).is_err() {
                break;
            }
        }
    }
    drop(IncomingBody::finish(body));
    let _ = OutgoingBody::finish(out, None);
}

fn told(error: store::Error) -> String {
    format!("{error:?}")
}

fn whole(answer: ResponseOutparam, text: Result<String, String>) {
    let body = head(answer, if text.is_ok() { 200 } else { 500 });
    send(&body, text.unwrap_or_else(|error| error).as_bytes());
    let _ = OutgoingBody::finish(body, None);
}

fn head(answer: ResponseOutparam, status: u16) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let body = response.body().expect("it is asked for once");
    ResponseOutparam::set(answer, Ok(response));
    body
}

fn send(body: &OutgoingBody, bytes: &[u8]) {
    if let Ok(mut stream) = body.write() {
        let _ = stream.write_all(bytes).and_then(|()| Write::flush(&mut stream));
    }
}
