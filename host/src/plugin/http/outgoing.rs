//! What the host keeps of HTTP for an instance.

use std::sync::Arc;

use http::{Request, Response};
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use super::sender::Sender;
use crate::plugin::limits::{HTTP_CHUNK_BYTES, HTTP_FIELDS_BYTES};

/// The HTTP of one instance.
pub(crate) struct Exchange {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// How it differs from the library's. None: it may send nothing.
struct Hooks(Option<Arc<Sender>>);

/// What becomes of a request or an answer that is under way.
type Outcome = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Exchange {
    pub(crate) fn new(sender: Option<Arc<Sender>>) -> Exchange {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HTTP_FIELDS_BYTES);
        Exchange { context, hooks: Hooks(sender) }
    }

    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { ctx: &mut self.context, table, hooks: &mut self.hooks }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Outcome,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Outcome), Error>> + Send> {
        let sender = self.0.clone();
        Box::new(async move {
            let sender = sender.ok_or(Error::HttpRequestDenied)?;
            let response = sender.send(request, options.unwrap_or_default()).await?;
            // What becomes of the answer is seen where its body is read.
            Ok((response, Box::new(std::future::ready(Ok(()))) as Outcome))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_CHUNK_BYTES
    }
}
