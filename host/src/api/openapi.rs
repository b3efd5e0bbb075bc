//! The OpenAPI document: what the routes say of themselves, and what holds for all of them.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema as _, ToSchema as _};

use super::error::ErrorBody;

/// Where it is served.
pub(crate) const PATH: &str = "/openapi.json";

/// A part of the API, with the name of the token that opens it.
pub(crate) struct Part {
    pub(crate) document: OpenApi,
    /// The tag of its operations.
    pub(crate) tag: &'static str,
    /// Of its security scheme.
    pub(crate) token: &'static str,
    /// What that token is.
    pub(crate) about: &'static str,
}

/// One document of all parts. Paths name a rest of the path like any other parameter: OpenAPI has no word for it.
pub(crate) fn document(parts: Vec<Part>) -> Value {
    let (mut paths, mut schemas, mut tokens) = (Map::new(), Map::new(), Map::new());
    let mut of_errors = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut of_errors);
    for (name, schema) in of_errors {
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
    for Part { document, tag, token, about } in parts {
        let own = serde_json::to_value(document).unwrap_or_default();
        for (path, item) in object(&own, "/paths") {
            let mut item = item.clone();
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete(operation, &path, method, tag, token);
            }
            paths.insert(path.replace("{*", "{"), item);
        }
        schemas.extend(object(&own, "/components/schemas"));
        tokens.insert(token.to_owned(), json!({ "type": "http", "scheme": "bearer", "description": about }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The data API, which serves the stores, and the admin API. Where a path ends in `{key}`, the key \
                            may have slashes. An error is always of the same shape.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": tokens },
    })
}

fn object(value: &Value, pointer: &str) -> Map<String, Value> {
    value.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// What no handler says of itself: its name, who may call it, its path's parameters, its errors.
fn complete(operation: &mut Value, path: &str, method: &str, tag: &str, token: &str) {
    let Some(operation) = operation.as_object_mut() else { return };
    operation.insert("operationId".to_owned(), id(path, method).into());
    operation.insert("tags".to_owned(), json!([tag]));
    operation.insert("security".to_owned(), json!([{ token: [] }]));
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        let named = |parameters: &[Value], name: &str| {
            parameters.iter().any(|known| known["in"] == "path" && known["name"] == name)
        };
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let name = name.trim_start_matches('*');
            if !named(parameters, name) {
                let schema = json!({ "type": "string", "minLength": 1 });
                parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
            }
        }
    }
    bytes(operation.get_mut("requestBody"));
    let errors = json!({
        "description": "Why not",
        "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{}", ErrorBody::name()) } } },
    });
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        responses.values_mut().for_each(|response| bytes(Some(response)));
        responses.insert("default".to_owned(), errors);
    }
}

/// A body of bytes, which utoipa takes for the list of numbers that they would be in JSON.
fn bytes(body: Option<&mut Value>) {
    let content = body.and_then(|body| body.get_mut("content")?.as_object_mut());
    for (kind, media) in content.into_iter().flatten() {
        let Some(media) = media.as_object_mut().filter(|_| kind != "application/json") else { continue };
        if media.get("schema").is_some_and(|schema| schema.get("items").is_some()) {
            media.insert("schema".to_owned(), json!({ "type": "string", "format": "binary" }));
        }
    }
}

/// `GET /api/kv/{store}` is `get_api_kv_store`.
fn id(path: &str, method: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
