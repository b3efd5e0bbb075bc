//! The functions of `wit/storage/vector.wit` as a case calls them, on Tollgate's own indexes.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tollgate_store::{
    Index, ReturnMetadata, Target, Vector, VectorError, VectorInfo, VectorMatch, VectorQuery,
};

use super::run::items;
use super::stores::{real, text, texts};

/// One call of a function of an index.
pub(super) async fn call(index: &Index, function: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    let answer = match (function, arguments) {
        ("upsert", [vectors]) => index.upsert(all(vectors)?).await.map(|()| Value::Null),
        ("insert", [vectors]) => index.insert(all(vectors)?).await.map(|()| Value::Null),
        ("get-by-ids", [ids]) => {
            index.get_by_ids(&texts(ids)?).await.map(|vectors| vectors.iter().map(shown).collect())
        }
        ("delete-by-ids", [ids]) => index.delete_by_ids(&texts(ids)?).await.map(|count| json!(count)),
        ("query", [target, options]) => {
            let found = index.query(query(target, options)?).await;
            found.map(|found| found.iter().map(match_shown).collect())
        }
        ("describe", []) => index.describe().await.map(|info| described(&info)),
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(VectorError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(VectorError::Conflict(_)) => json!({ "err": "conflict" }),
        Err(VectorError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(error @ VectorError::Absent(_)) => json!({ "err": { "invalid": error.to_string() } }),
        Err(VectorError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(VectorError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    })
}

fn all(vectors: &Value) -> anyhow::Result<Vec<Vector>> {
    items(vectors)?.iter().map(vector).collect()
}

fn vector(value: &Value) -> anyhow::Result<Vector> {
    Ok(Vector {
        id: text(value.get("id").context("a vector has an `id`")?)?.to_owned(),
        values: values(value.get("values").context("a vector has `values`")?)?,
        namespace: optional(value, "namespace"),
        metadata: optional(value, "metadata"),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "a case writes values as JSON has them")]
fn values(list: &Value) -> anyhow::Result<Vec<f32>> {
    let number = |value: &Value| value.as_f64().with_context(|| format!("{value} must be a number"));
    items(list)?.iter().map(|value| Ok(number(value)? as f32)).collect()
}

fn query(target: &Value, options: &Value) -> anyhow::Result<VectorQuery> {
    let target = match (target.get("id"), target.get("values")) {
        (Some(id), None) => Target::Id(text(id)?.to_owned()),
        (None, Some(list)) => Target::Values(values(list)?),
        _ => bail!("a target is {{ values = […] }} or {{ id = … }}"),
    };
    let top_k = options.get("top-k").and_then(Value::as_u64).context("`top-k` is missing")?;
    Ok(VectorQuery {
        target,
        top_k: usize::try_from(top_k)?,
        namespace: optional(options, "namespace"),
        filter: optional(options, "filter"),
        return_values: options.get("return-values").and_then(Value::as_bool).unwrap_or_default(),
        return_metadata: match options.get("return-metadata").and_then(Value::as_str) {
            None | Some("none") => ReturnMetadata::None,
            Some("indexed") => ReturnMetadata::Indexed,
            Some("all") => ReturnMetadata::All,
            Some(other) => bail!("return-metadata = {other:?}: none, indexed or all"),
        },
    })
}

fn optional(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn shown(Vector { id, values, namespace, metadata }: &Vector) -> Value {
    json!({ "id": id, "values": reals(values), "namespace": namespace, "metadata": metadata })
}

fn match_shown(VectorMatch { id, score, namespace, values, metadata }: &VectorMatch) -> Value {
    let values = values.as_deref().map(reals);
    json!({ "id": id, "score": real(*score), "namespace": namespace, "values": values, "metadata": metadata })
}

fn reals(values: &[f32]) -> Value {
    values.iter().map(|value| real(f64::from(*value))).collect()
}

/// Without the recall: whether a query was sampled is chance.
fn described(info: &VectorInfo) -> Value {
    json!({
        "dimensions": info.dimensions,
        "metric": info.metric.name(),
        "vectors": info.vectors,
        "value-bytes": info.value_bytes,
        "memory-bytes": info.memory_bytes,
    })
}
