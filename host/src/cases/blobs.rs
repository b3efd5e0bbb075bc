//! The functions of `wit/storage/blob.wit` as a case calls them, on Tollgate's own containers.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tollgate_store::{
    BlobError, BlobInfo, BlobList, ByteRange, Container, Etags, GetOptions, Got, Precondition, PutOptions,
};

use super::run::items;
use super::stores::{decode, text, texts};

/// One call of a function of a container.
pub(super) async fn call(
    container: &Container,
    function: &str,
    arguments: &[Value],
) -> anyhow::Result<Value> {
    let answer = match (function, arguments) {
        ("put", [key, content, options]) => {
            container.put(text(key)?, &decode(content)?, writing(options)?).await.map(|info| shown(&info))
        }
        // Of an object in pieces: elsewhere a writer and a reader do it.
        ("write", [key, pieces, options]) => write(container, key, pieces, options).await?,
        ("get" | "read", [key, options]) => match container.get(text(key)?, reading(options)?).await {
            Ok(got) => found(got).await,
            Err(error) => Err(error),
        },
        ("head", [key]) => container.head(text(key)?).await.map(|info| json!(info.as_ref().map(shown))),
        ("delete", [key, precondition]) => {
            container.delete(text(key)?, condition(precondition)?).await.map(Value::Bool)
        }
        ("delete-many", [keys]) => container.delete_many(&texts(keys)?).await.map(|count| json!(count)),
        ("list-objects", [options]) => container.list(list(options)?).await.map(|page| {
            let objects: Vec<Value> = page.objects.iter().map(shown).collect();
            json!({ "objects": objects, "prefixes": page.prefixes, "cursor": page.cursor })
        }),
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(BlobError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(BlobError::PreconditionFailed) => json!({ "err": "conflict" }),
        Err(BlobError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(error @ BlobError::OutOfRange(_)) => json!({ "err": { "invalid": error.to_string() } }),
        Err(BlobError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(BlobError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    })
}

async fn write(
    container: &Container,
    key: &Value,
    pieces: &Value,
    options: &Value,
) -> anyhow::Result<Result<Value, BlobError>> {
    let mut upload = match container.upload(text(key)?, writing(options)?) {
        Ok(upload) => upload,
        Err(error) => return Ok(Err(error)),
    };
    for piece in items(pieces)? {
        if let Err(error) = upload.write(&decode(piece)?).await {
            return Ok(Err(error));
        }
    }
    Ok(upload.publish().await.map(|info| shown(&info)))
}

async fn found(got: Got) -> Result<Value, BlobError> {
    Ok(match got {
        Got::Absent => json!("absent"),
        Got::Unmet(_, info) => json!({ "unmet": info.as_ref().map(shown) }),
        Got::Found(reader) => {
            let (info, offset) = (shown(reader.info()), reader.range().start);
            let content = hex::encode(reader.read_all().await?);
            json!({ "found": { "info": info, "offset": offset, "content": content } })
        }
    })
}

fn shown(info: &BlobInfo) -> Value {
    json!({
        "key": info.key,
        "size": info.size,
        "etag": info.etag,
        "uploaded-ms": info.uploaded_ms,
        "content-type": info.content_type,
        "cache-control": info.cache_control,
        "metadata": info.metadata,
    })
}

fn writing(options: &Value) -> anyhow::Result<PutOptions> {
    let optional = |name| options.get(name).and_then(Value::as_str).map(str::to_owned);
    let metadata = options.get("metadata").map(items).transpose()?.map(Vec::as_slice).unwrap_or_default();
    let metadata = metadata.iter().map(|entry| match items(entry)?.as_slice() {
        [name, value] => Ok((text(name)?.to_owned(), text(value)?.to_owned())),
        _ => bail!("{entry} must be a name with its value"),
    });
    Ok(PutOptions {
        content_type: optional("content-type"),
        cache_control: optional("cache-control"),
        metadata: metadata.collect::<Result<_, _>>()?,
        precondition: condition(options.get("precondition").unwrap_or(&Value::Null))?,
    })
}

fn reading(options: &Value) -> anyhow::Result<GetOptions> {
    let range = options.get("range").filter(|range| !range.is_null()).map(|range| {
        if let Some(bytes) = range.get("last") {
            return bytes.as_u64().map(ByteRange::Last);
        }
        let part = range.get("part")?;
        let length = part.get("length").and_then(Value::as_u64);
        Some(ByteRange::From { offset: part.get("offset")?.as_u64()?, length })
    });
    let range = match range {
        Some(None) => bail!("a range is {{ last = BYTES }} or {{ part = {{ offset = …, length = … }} }}"),
        Some(range) => range,
        None => None,
    };
    let precondition = condition(options.get("precondition").unwrap_or(&Value::Null))?;
    Ok(GetOptions { range, precondition, verify: true })
}

fn condition(value: &Value) -> anyhow::Result<Precondition> {
    let etags = |name| match value.get(name) {
        None | Some(Value::Null) => anyhow::Ok(None),
        Some(Value::String(any)) if any == "any" => Ok(Some(Etags::Any)),
        Some(etags) => {
            let of = etags.get("of").context("entity tags are `any` or { of = […] }")?;
            Ok(Some(Etags::Of(texts(of)?)))
        }
    };
    Ok(Precondition { if_match: etags("if-match")?, if_none_match: etags("if-none-match")? })
}

fn list(options: &Value) -> anyhow::Result<BlobList> {
    let optional = |name| options.get(name).and_then(Value::as_str).map(str::to_owned);
    let limit = options.get("limit").and_then(Value::as_u64).context("a limit is missing")?;
    Ok(BlobList {
        prefix: optional("prefix").unwrap_or_default(),
        delimiter: optional("delimiter"),
        cursor: optional("cursor"),
        limit: usize::try_from(limit)?,
    })
}
