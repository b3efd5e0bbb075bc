//! A page under a route of its own: it greets whoever asks, and counts the visits in a kv store.
//!
//! It is a component for any host of `wasi:http`; only the counting is Tollgate's. Each request has an instance of its own.

use tollgate_guest::kv;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Plugin;
wasip2::http::proxy::export!(Plugin);
thread_local! {
    static VISITS: kv::Named = const { kv::Named::new("PLUGIN-NAME") };
}

impl Guest for Plugin {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (status, text) = match (request.method(), page(&path)) {
            (Method::Get, "") => match visit() {
                Ok(visits) => (200, greeting(&client(&request), visits)),
                Err(error) => (500, error),
            },
            (Method::Get, _) => (404, "there is no such page\n".to_owned()),
            _ => (405, "only GET\n".to_owned()),
        };
        send(answer, status, &text);
    }
}

/// What of a path stands behind the plugin's route.
fn page(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    path.strip_prefix("/PLUGIN-NAME").unwrap_or(path).trim_matches('/')
}

fn greeting(client: &str, visits: i64) -> String {
    format!("Hello {client}, you are visitor {visits}.\n")
}

/// Counts this visit; how many there are.
fn visit() -> Result<i64, String> {
    VISITS.with(|store| {
        store.get()?.increment("visits", 1, None).map_err(|error| store.explain(&error))
    })
}

/// The name of the client's key, which the server tells; the key itself it does not.
fn client(request: &IncomingRequest) -> String {
    let name = request.headers().get("tollgate-client").into_iter().next();
    name.map_or("stranger".to_owned(), |name| String::from_utf8_lossy(&name).into_owned())
}

fn send(answer: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(stream) = body.write() {
        // In pieces, since a host takes 4 KiB at once.
        for piece in text.as_bytes().chunks(4096) {
            if stream.blocking_write_and_flush(piece).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_stands_behind_the_route() {
        assert_eq!(page("/PLUGIN-NAME"), "");
        assert_eq!(page("/PLUGIN-NAME/?a=1"), "");
        assert_eq!(page("/PLUGIN-NAME/more/of/it"), "more/of/it");
    }

    #[test]
    fn everybody_is_greeted_by_name() {
        assert_eq!(greeting("alice", 7), "Hello alice, you are visitor 7.\n");
    }
}
