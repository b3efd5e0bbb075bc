//! Answers with what `http://AUTHORITY/PATH` answers, for requests to `…?AUTHORITY/PATH`, or with the reason why it has nothing.

use std::io::{Read, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Fetcher);

struct Fetcher;

impl Guest for Fetcher {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let target = path.split_once('?').map(|(_, target)| target).unwrap_or_default();
        let (authority, path) = target.split_once('/').unwrap_or((target, ""));
        let (status, text) = match fetch(authority, &format!("/{path}")) {
            Ok(response) => (response.status(), read(&response)),
            Err(code) => (502, format!("{code:?}").into_bytes()),
        };
        let response = OutgoingResponse::new(Fields::new());
        let _ = response.set_status_code(status);
        let body = response.body().expect("it is asked for once");
        ResponseOutparam::set(answer, Ok(response));
        if let Ok(mut stream) = body.write() {
            let _ = stream.write_all(&text).and_then(|()| Write::flush(&mut stream));
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

fn fetch(authority: &str, path: &str) -> Result<IncomingResponse, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let set = [
        request.set_scheme(Some(&Scheme::Http)),
        request.set_authority(Some(authority)),
        request.set_path_with_query(Some(path)),
    ];
    if set.contains(&Err(())) {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    let future = outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    future.get().expect("it is there").expect("it is asked for once")
}

fn read(response: &IncomingResponse) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(body) = response.consume()
        && let Ok(mut stream) = body.stream()
        && let Err(error) = stream.read_to_end(&mut bytes)
    {
        bytes.extend(format!("[{error}]").into_bytes());
    }
    bytes
}
