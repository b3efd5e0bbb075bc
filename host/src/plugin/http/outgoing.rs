//! What the host keeps of HTTP for an instance, and what it sends for it: nothing yet that a manifest could grant.

use http::{Request, Response};
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use crate::plugin::limits::{HTTP_CHUNK_BYTES, HTTP_FIELDS_BYTES};

/// The HTTP of one instance.
pub(crate) struct Exchange {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// How it differs from the library's.
struct Hooks;

/// What becomes of a request or an answer that is under way.
type Outcome = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Exchange {
    pub(crate) fn new() -> Exchange {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HTTP_FIELDS_BYTES);
        Exchange { context, hooks: Hooks }
    }

    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { ctx: &mut self.context, table, hooks: &mut self.hooks }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Outcome,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Outcome), Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_CHUNK_BYTES
    }
}
