//! What a guest has the host hold of requests and headers: in short texts, and counted as memory of its instance.
//!
//! The library bounds each set of headers, but not the texts of a request, nor all of them together.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::HeaderResult;
use wasmtime_wasi_http::p2::bindings::http::types::{
    HeaderError, Host, HostFields, HostOutgoingRequest, Method, OutgoingRequest,
};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use crate::plugin::instance::HostState;
use crate::plugin::limits::HTTP_TEXT_BYTES;

/// The interface in the version that the library links.
const TYPES: &str = "wasi:http/types@0.2.12";

type Calling<'a> = StoreContextMut<'a, HostState>;
type Request = Resource<OutgoingRequest>;
type Fields = Resource<FieldMap>;

/// Puts these functions before the library's, which must be linked.
pub(crate) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut caller: Calling<'_>, (request, method): (Request, Method)| {
            let state = caller.data_mut();
            let name = if let Method::Other(name) = &method { name.as_str() } else { "" };
            Ok((if fits(state, name)? { state.http().set_method(request, method)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut caller: Calling<'_>, (request, text): (Request, Option<String>)| {
            let state = caller.data_mut();
            let fits = fits(state, text.as_deref().unwrap_or_default())?;
            Ok((if fits { state.http().set_authority(request, text)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut caller: Calling<'_>, (request, text): (Request, Option<String>)| {
            let state = caller.data_mut();
            let fits = fits(state, text.as_deref().unwrap_or_default())?;
            Ok((if fits { state.http().set_path_with_query(request, text)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut caller: Calling<'_>, (entries,): (Vec<(String, Vec<u8>)>,)| {
            let state = caller.data_mut();
            hold(state, entries.iter().map(|(name, value)| name.len() + value.len()).sum())?;
            let made = state.http().from_list(entries);
            told(state, made)
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut caller: Calling<'_>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
            let state = caller.data_mut();
            hold(state, name.len() + values.iter().map(Vec::len).sum::<usize>())?;
            let set = state.http().set(fields, name, values);
            told(state, set)
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut caller: Calling<'_>, (fields, name, value): (Fields, String, Vec<u8>)| {
            let state = caller.data_mut();
            hold(state, name.len() + value.len())?;
            let appended = state.http().append(fields, name, value);
            told(state, appended)
        },
    )?;
    types.func_wrap("[method]fields.clone", |mut caller: Calling<'_>, (fields,): (Fields,)| {
        let state = caller.data_mut();
        let http = state.http();
        let entries = http.table.get(&fields)?.iter();
        let bytes = entries.map(|(name, value)| name.as_str().len() + value.len()).sum();
        hold(state, bytes)?;
        Ok((HostFields::clone(&mut state.http(), fields)?,))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Whether a text is short enough, and is held then.
fn fits(state: &mut HostState, text: &str) -> wasmtime::Result<bool> {
    if text.len() > HTTP_TEXT_BYTES {
        return Ok(false);
    }
    hold(state, text.len())?;
    Ok(true)
}

/// Ends a guest that has the host hold too much, like one that is out of memory.
fn hold(state: &mut HostState, bytes: usize) -> wasmtime::Result<()> {
    if state.hold(bytes) { Ok(()) } else { wasmtime::bail!("the host holds too much for it") }
}

/// What the guest gets: an error of its own may be a trap too.
fn told<T>(state: &mut HostState, result: HeaderResult<T>) -> wasmtime::Result<(Result<T, HeaderError>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(state.http().convert_header_error(error)?),)),
    }
}
