//! An album of objects that knows nothing of Tollgate: it is written against the interfaces of WASI alone.
//!
//! `…/VERB?ARGUMENT&…` does what [`answer`] has for the verb, in container `album`. What fails is answered with status 500 and
//! the error.

use std::io::{Read, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use wasi::blobstore::blobstore;
use wasi::blobstore::container::Container;
use wasi::blobstore::types::{IncomingValue, ObjectId, OutgoingValue};

wit_bindgen::generate!({
    path: ["../../../wit/wasi-io", "../../../wit/wasi-blobstore"],
    inline: "
        package test:album;
        world album {
            import wasi:blobstore/types@0.2.0-draft;
            import wasi:blobstore/container@0.2.0-draft;
            import wasi:blobstore/blobstore@0.2.0-draft;
        }
    ",
    with: {
        "wasi:io/error@0.2.0": wasip2::io::error,
        "wasi:io/poll@0.2.0": wasip2::io::poll,
        "wasi:io/streams@0.2.0": wasip2::io::streams,
    },
    generate_all,
});

wasip2::http::proxy::export!(Album);

struct Album;

/// Bytes that a stream takes at once by `blocking-write-and-flush`.
const PIECE: usize = 4096;

impl Guest for Album {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let verb = path.rsplit('/').next().unwrap_or_default();
        let arguments: Vec<&str> = query.split('&').collect();
        if verb == "read" {
            return send(out, &arguments);
        }
        let (status, text) = match answer(verb, &arguments, &request) {
            Ok(text) => (200, text),
            Err(text) => (500, text.into_bytes()),
        };
        let body = head(out, status);
        if let Ok(mut stream) = body.write() {
            let _ = stream.write_all(&text).and_then(|()| Write::flush(&mut stream));
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

fn answer(verb: &str, arguments: &[&str], request: &IncomingRequest) -> Result<Vec<u8>, String> {
    let album = blobstore::get_container("album")?;
    let first = *arguments.first().ok_or("no argument")?;
    let argument = |place: usize| arguments.get(place).copied().ok_or("an argument is missing");
    let number = |place| -> Result<u64, String> {
        argument(place)?.parse().map_err(|_| "an argument is no number".to_owned())
    };
    let text = match verb {
        "stream" => stream_in(&album, first, request)?,
        "held" => hold(&album, first, request)?,
        "endless" => endless(&album, first, argument(1)? == "held")?,
        "unfinished" => unfinished(&album, first)?,
        "unnamed" => OutgoingValue::finish(OutgoingValue::new_outgoing_value()).map(|()| String::new())?,
        "streams" => streams(),
        "readers" => readers(&album, first),
        "get" => {
            let value = album.get_data(first, number(1)?, number(2)?)?;
            let size = value.size();
            let bytes = IncomingValue::incoming_value_consume_sync(value)?;
            assert_eq!(bytes.len() as u64, size);
            return Ok(bytes);
        }
        "names" => names(&album, number(0)?)?,
        "skip" => {
            let names = album.list_objects()?;
            let (skipped, _) = names.skip_stream_object_names(number(0)?)?;
            let (next, ended) = names.read_stream_object_names(1)?;
            format!("{skipped} {next:?} {ended}")
        }
        "has" => album.has_object(first)?.to_string(),
        "info" => {
            let info = album.object_info(first)?;
            format!("{} {} {} {}", info.container, info.name, info.size, info.created_at)
        }
        "delete" if arguments.len() == 1 => album.delete_object(first).map(|()| String::new())?,
        "delete" => {
            let names: Vec<String> = arguments.iter().map(|&name| name.to_owned()).collect();
            album.delete_objects(&names).map(|()| String::new())?
        }
        "copy" => blobstore::copy_object(&id(first), &id(argument(1)?)).map(|()| String::new())?,
        "move" => blobstore::move_object(&id(first), &id(argument(1)?)).map(|()| String::new())?,
        "clear" => album.clear().map(|()| String::new())?,
        "exists" => blobstore::container_exists(first)?.to_string(),
        "open" => {
            let container = blobstore::get_container(first)?;
            format!("{} {}", container.name()?, container.info()?.name)
        }
        "put" => {
            let container = blobstore::get_container(first)?;
            container.write_data("k", &OutgoingValue::new_outgoing_value()).map(|()| String::new())?
        }
        "create" => blobstore::create_container(first)?.name()?,
        "remove" => blobstore::delete_container(first).map(|()| String::new())?,
        _ => return Err("there is no such verb".to_owned()),
    };
    Ok(text.into_bytes())
}

/// `CONTAINER/OBJECT`.
fn id(text: &str) -> ObjectId {
    let (container, object) = text.split_once('/').unwrap_or(("album", text));
    ObjectId { container: container.to_owned(), object: object.to_owned() }
}

/// Writes the request's body as it comes.
fn stream_in(album: &Container, name: &str, request: &IncomingRequest) -> Result<String, String> {
    let value = OutgoingValue::new_outgoing_value();
    let to = value.outgoing_value_write_body().map_err(|()| "no stream")?;
    album.write_data(name, &value)?;
    let body = request.consume().map_err(|()| "the body is gone")?;
    let from = body.stream().map_err(|()| "the stream is gone")?;
    splice(&to, &from)?;
    drop(to);
    OutgoingValue::finish(value).map(|()| String::new())
}

/// Writes the request's body before it says where it goes. The stream is still there when the content is finished.
fn hold(album: &Container, name: &str, request: &IncomingRequest) -> Result<String, String> {
    let body = request.consume().map_err(|()| "the body is gone")?;
    let mut bytes = Vec::new();
    let mut from = body.stream().map_err(|()| "the stream is gone")?;
    from.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let value = OutgoingValue::new_outgoing_value();
    let to = value.outgoing_value_write_body().map_err(|()| "no stream")?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        // It asks again and again rather than wait, as some do.
        let now = rest.len().min(to.check_write().map_err(told)? as usize);
        to.write(&rest[..now]).map_err(told)?;
        rest = &rest[now..];
    }
    to.flush().map_err(told)?;
    album.write_data(name, &value)?;
    OutgoingValue::finish(value)?;
    assert!(matches!(to.check_write(), Err(StreamError::Closed)));
    Ok(String::new())
}

/// Writes until it is refused: how many bytes were taken, and why no more.
fn endless(album: &Container, name: &str, held: bool) -> Result<String, String> {
    let value = OutgoingValue::new_outgoing_value();
    let to = value.outgoing_value_write_body().map_err(|()| "no stream")?;
    if !held {
        album.write_data(name, &value)?;
    }
    let mut written = 0;
    let refused = loop {
        match to.blocking_write_and_flush(&[7; PIECE]) {
            Ok(()) => written += PIECE,
            Err(error) => break told(error),
        }
    };
    drop(to);
    let finished = OutgoingValue::finish(value);
    Ok(format!("{written} {refused} {finished:?}"))
}

/// Writes an object and does not finish it.
fn unfinished(album: &Container, name: &str) -> Result<String, String> {
    let value = OutgoingValue::new_outgoing_value();
    let to = value.outgoing_value_write_body().map_err(|()| "no stream")?;
    album.write_data(name, &value)?;
    to.blocking_write_and_flush(b"half").map_err(told)?;
    drop(value);
    Ok(format!("{:?}", to.check_write().map_err(|error| matches!(error, StreamError::Closed))))
}

/// How many contents can be written at once.
fn streams() -> String {
    let mut open = Vec::new();
    loop {
        let value = OutgoingValue::new_outgoing_value();
        let Ok(stream) = value.outgoing_value_write_body() else { break };
        open.push((stream, value));
    }
    open.len().to_string()
}

/// How many contents can be read at once, and why no more.
fn readers(album: &Container, name: &str) -> String {
    let mut open = Vec::new();
    let refused = loop {
        match album.get_data(name, 0, u64::MAX) {
            Ok(value) => open.push(value),
            Err(error) => break error,
        }
    };
    format!("{} {refused}", open.len())
}

/// All names, so many at a time, with how many times it asked.
fn names(album: &Container, step: u64) -> Result<String, String> {
    let stream = album.list_objects()?;
    let (mut all, mut asked) = (Vec::new(), 0);
    loop {
        let (names, ended) = stream.read_stream_object_names(step)?;
        all.extend(names);
        asked += 1;
        if ended {
            return Ok(format!("{asked} {}", all.join(" ")));
        }
    }
}

/// Answers with an object as it is read.
fn send(out: ResponseOutparam, arguments: &[&str]) {
    let opened = || -> Result<InputStream, String> {
        let album = blobstore::get_container("album")?;
        let value = album.get_data(arguments.first().unwrap_or(&""), 0, u64::MAX)?;
        IncomingValue::incoming_value_consume_async(value)
    };
    let opened = opened();
    let body = head(out, if opened.is_ok() { 200 } else { 500 });
    let Ok(to) = body.write() else { return };
    let sent = match &opened {
        Ok(from) => splice(&to, from),
        Err(error) => to.blocking_write_and_flush(error.as_bytes()).map_err(told),
    };
    drop(to);
    if sent.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Takes all of one stream to another.
fn splice(to: &OutputStream, from: &InputStream) -> Result<(), String> {
    loop {
        match to.blocking_splice(from, 1 << 20) {
            Ok(_) => {}
            Err(StreamError::Closed) => return Ok(()),
            Err(error) => return Err(told(error)),
        }
    }
}

fn told(error: StreamError) -> String {
    match error {
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
        StreamError::Closed => "closed".to_owned(),
    }
}

fn head(out: ResponseOutparam, status: u16) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let body = response.body().expect("it is asked for once");
    ResponseOutparam::set(out, Ok(response));
    body
}
