//! The OpenAPI document against the running server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use http::{Method, StatusCode};
use serde_json::Value;

use super::{client, start, token};
use crate::support::python;
use crate::support::server::ADMIN_TOKEN;

const METHODS: [&str; 6] = ["get", "head", "put", "post", "patch", "delete"];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_the_server_have_the_same_document() {
    let server = start();
    let served = server.client("").get("/openapi.json").await;
    assert_eq!((served.status, served.header("content-type")), (StatusCode::OK, "application/json"));
    let printed: Value = serde_json::from_str(&server.cli_ok(&["openapi"])).unwrap();
    assert_eq!(printed, served.json());
    let ids: BTreeSet<_> =
        operations(&printed).iter().map(|(_, _, op)| op["operationId"].to_string()).collect();
    assert_eq!(ids.len(), operations(&printed).len(), "each operation has a name of its own");
    let text = printed.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(printed["components"]["schemas"].get(name).is_some(), "no schema {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_served_and_every_other_method_is_not() {
    let server = start();
    let data = client(
        &server,
        &[
            "--kv",
            "notes:read-write",
            "--blob",
            "images:read-write",
            "--sql",
            "reports:read",
            "--vector",
            "captions:read-write",
        ],
    );
    let admin = server.client(ADMIN_TOKEN);
    let document = server.client("").get("/openapi.json").await.json();
    let operations = operations(&document);
    let paths: BTreeSet<_> = operations.iter().map(|(path, ..)| path.clone()).collect();
    for path in &paths {
        let caller = if path.starts_with("/api/") { &data } else { &admin };
        let real = path.replace("{container}", "images").replace("{database}", "nowhere");
        let real =
            real.replace("{store}", "notes").replace("{kind}", "client").replace("{index}", "captions");
        let real: String = real
            .split('/')
            .map(|part| {
                if part.starts_with('{') { "/x" } else { "/" }.to_owned() + part.trim_matches(['{', '}'])
            })
            .collect::<String>()
            .replacen("//", "/", 1);
        for method in METHODS {
            let documented = operations.iter().any(|(known, m, _)| known == path && m == method);
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = caller.call(verb, &real, &[], "").await;
            let text = answer.text();
            assert!(!text.contains("there is no such"), "{method} {path} ({real}): {text}");
            let is_served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            // axum answers HEAD wherever GET is.
            let expected = documented
                || method == "head" && operations.iter().any(|(known, m, _)| known == path && m == "get");
            assert_eq!(is_served, expected, "{method} {path} ({real}): {}", answer.status);
        }
    }
    assert!(paths.len() > 20, "{paths:?}");
}

/// What is routed otherwise than with `routes!` is in no document.
#[test]
fn every_route_of_both_apis_is_in_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in ["admin", "data", "data/blob", "data/vector"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for word in [".route(", ".route_service(", ".nest_service("] {
                assert!(!source.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

/// An answer in JSON that could be anything tells a caller nothing, and bytes are no list of numbers.
#[test]
fn every_body_is_documented_as_what_it_is() {
    let (document, mut answers, mut wrong) = (printed(), 0, Vec::new());
    for (path, method, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap().iter();
        let request = operation.get("requestBody").map(|body| ("request", body));
        for (which, body) in responses.map(|(status, body)| (status.as_str(), body)).chain(request) {
            for (kind, content) in body["content"].as_object().into_iter().flatten() {
                let schema = &content["schema"];
                let is_right = match kind.as_str() {
                    "application/json" if schema["$ref"] == "#/components/schemas/Value" => false,
                    "application/json" => {
                        ["$ref", "type", "oneOf"].iter().any(|word| schema.get(word).is_some())
                    }
                    _ => schema["type"] == "string",
                };
                answers += 1;
                if !is_right {
                    wrong.push(format!("{method} {path} {which} {kind}: {schema}"));
                }
            }
        }
    }
    assert!(answers > 50 && wrong.is_empty(), "{wrong:#?}");
}

/// What two alternatives of one schema allow is by `oneOf` not allowed: a number for either a number or an integer.
#[test]
fn alternatives_exclude_each_other() {
    fn look(value: &Value, wrong: &mut Vec<Value>) {
        let alternatives = value["oneOf"].as_array().into_iter().flatten();
        let types = alternatives.flat_map(|one| match &one["type"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        });
        let types = types.map(|one| if one == "integer" { "number".into() } else { one });
        // Objects are told apart by their properties.
        let types: Vec<_> = types.filter(|one| one.is_string() && one != "object").collect();
        let distinct: BTreeSet<_> = types.iter().map(Value::to_string).collect();
        if distinct.len() < types.len() {
            wrong.push(value.clone());
        }
        match value {
            Value::Array(parts) => parts.iter().for_each(|part| look(part, wrong)),
            Value::Object(parts) => parts.values().for_each(|part| look(part, wrong)),
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    look(&printed(), &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn printed() -> Value {
    let printed = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("openapi").output().unwrap().stdout;
    serde_json::from_slice(&printed).unwrap()
}

/// In a merge patch everything may be left out or null.
#[test]
fn what_a_patch_may_be_is_documented() {
    let document = printed();
    for (path, schema) in
        [("/admin/v1/keys/{name}", "KeyPatch"), ("/admin/v1/accounts/{name}", "AccountPatch")]
    {
        let body = &document["paths"][path]["patch"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["$ref"], format!("#/components/schemas/{schema}"));
        let schema = &document["components"]["schemas"][schema];
        assert!(schema.get("required").is_none() && schema["additionalProperties"] == false, "{schema:#}");
        for (name, property) in schema["properties"].as_object().unwrap() {
            let one_of = property["oneOf"].as_array().into_iter().flatten().map(|one| &one["type"]);
            let several = property["type"].as_array().into_iter().flatten();
            assert_eq!(one_of.chain(several).filter(|kind| *kind == "null").count(), 1, "{name}: {property}");
            assert!(property.get("default").is_none(), "{name}: {property}");
        }
        let of_group = &schema["properties"]["model_limits"]["additionalProperties"]["oneOf"];
        assert!(of_group.to_string().contains("null"), "{schema:#}");
    }
}

/// Of several types with one name the document would have one, for all of them.
#[test]
fn every_schema_of_the_document_is_of_one_type() {
    let mut types: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                for name in schema_names(&std::fs::read_to_string(&path).unwrap()) {
                    types.entry(name).or_default().push(path.clone());
                }
            }
        }
    }
    // `Value`, which is not of this crate, is any JSON.
    for name in printed()["components"]["schemas"].as_object().unwrap().keys().filter(|name| *name != "Value")
    {
        let found = types.get(name).unwrap_or_else(|| panic!("which type is {name}?"));
        assert_eq!(
            found.len(),
            1,
            "give one of them another name, by `#[schema(as = …)]`: {name} in {found:?}"
        );
    }
}

/// The names of the schemas that a source makes.
fn schema_names(source: &str) -> Vec<String> {
    let after = |line: &str, words: &str| -> Option<String> {
        let rest = line.split_once(words)?.1;
        Some(rest.chars().take_while(|letter| letter.is_alphanumeric()).collect())
    };
    let (mut names, mut derived, mut given) = (Vec::new(), false, None);
    for line in source.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        derived |= line.starts_with("#[derive(") && line.contains("ToSchema");
        given = after(line, "schema(as = ").or(given);
        names.extend(after(line, "impl ToSchema for "));
        if let Some(declared) = after(line, "struct ").or_else(|| after(line, "enum ")) {
            let name = given.take().unwrap_or(declared);
            if std::mem::take(&mut derived) {
                names.push(name);
            }
        }
    }
    names
}

/// schemathesis makes requests up from the document, right ones and wrong ones, and holds the answers against it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "sets up a virtual environment from the package index; .ci/run runs it"]
async fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let server = start();
    let data = token(
        &server,
        &[
            "--kv",
            "notes:read-write",
            "--kv",
            "other:read",
            "--blob",
            "images:read-write",
            "--blob",
            "other:read",
            "--sql",
            "reports:read-write",
            "--vector",
            "captions:read-write",
        ],
    );
    let mut document = server.client("").get("/openapi.json").await.json();
    // Names that nobody has would only ever be refused.
    for (name, known) in [
        ("store", ["notes", "other"]),
        ("container", ["images", "other"]),
        ("database", ["reports", "gateway"]),
        ("index", ["captions", "none"]),
        ("plugin", ["quota", "none"]),
    ] {
        narrow(&mut document, name, &known);
    }
    let file = server.home().join("openapi.json");
    // It knows no types such as `application/wasm`; bytes are bytes.
    for item in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in item.as_object_mut().unwrap().values_mut() {
            let content = operation.pointer_mut("/requestBody/content");
            let Some(content) = content.and_then(Value::as_object_mut) else { continue };
            let types = std::mem::take(content).into_iter();
            content.extend(types.map(|(kind, body)| match kind.as_str() {
                "application/json" => (kind, body),
                _ => ("application/octet-stream".to_owned(), body),
            }));
        }
    }
    std::fs::write(&file, document.to_string()).unwrap();
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/openapi/requirements.txt");
    let environment = python::environment("openapi-venv", &requirements);
    let strict = format!("{CHECKS},negative_data_rejection");
    for (paths, token, checks) in
        [("^/api/", data.as_str(), strict.as_str()), ("^/admin/", ADMIN_TOKEN, CHECKS)]
    {
        let output = Command::new(environment.join("bin/st"))
            .arg("run")
            .arg(&file)
            .args(["--url", server.url(), "--include-path-regex", paths])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1"])
            .args(["--checks", checks, "--continue-on-failure", "--suppress-health-check", "all"])
            .args(["--warnings", "off", "--request-timeout", "30"])
            .current_dir(server.home())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{paths}:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// That no answer is a fault of the server, that each has a documented status, type, headers and shape, that no wrong token
/// passes, and no method that the document has not. Of the data API also that nothing passes that the document says is wrong.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,ignored_auth,unsupported_method,use_after_free";

fn narrow(document: &mut Value, name: &str, known: &[&str]) {
    for item in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in item.as_object_mut().unwrap().values_mut() {
            for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
                if parameter["in"] == "path" && parameter["name"] == name {
                    parameter["schema"]["enum"] = known.into();
                }
            }
        }
    }
}
