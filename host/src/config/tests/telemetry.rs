//! `[telemetry]`.

use super::*;
use crate::telemetry::Settings;

#[test]
fn every_key_of_telemetry_arrives_and_the_rest_has_its_default() {
    let minimal = "[telemetry]\nendpoint = \"http://127.0.0.1:4318/\"";
    let defaults = Settings {
        endpoint: "http://127.0.0.1:4318".to_owned(),
        headers: BTreeMap::new(),
        ca: None,
        sample_ratio: 1.0,
        service_name: "tollgate".to_owned(),
    };
    assert_eq!(parse(minimal).unwrap().telemetry, Some(defaults.clone()));
    let whole = format!(
        "{minimal}\nheaders = {{ X-Tenant = \"main\" }}\nheaders_env = {{ authorization = \"SET\" }}\n\
         sample_ratio = 0.25\nservice_name = \"edge\""
    );
    let headers = BTreeMap::from([
        ("x-tenant".to_owned(), Secret::new("main")),
        ("authorization".to_owned(), Secret::new("sk-from-environment")),
    ]);
    let expected = Settings { headers, sample_ratio: 0.25, service_name: "edge".to_owned(), ..defaults };
    assert_eq!(parse(&whole).unwrap().telemetry, Some(expected));
    assert_eq!(parse("").unwrap().telemetry, None);
}

#[test]
fn what_is_wrong_with_telemetry_is_told_and_secrets_are_not() {
    check("[telemetry]", &["1: missing `endpoint` in [telemetry]"]);
    let endpoint = "[telemetry]\nendpoint = \"http://h\"\n";
    for (lines, problem) in [
        ("sample_ratio = 1.5", "3: `sample_ratio` in [telemetry] must be a number from 0 to 1"),
        (
            "sample_ratio = \"all\"",
            "3: `sample_ratio` in [telemetry] must be a number, such as 0.1, not a string",
        ),
        ("headers = { host = \"x\" }", "3: `headers` in [telemetry]: `host` is set by the server itself"),
        (
            "headers = { a = \"\\u0007\" }",
            "3: `headers` in [telemetry]: `a` has a value that no header can carry",
        ),
        (
            "headers_env = { a = \"EMPTY\" }",
            "3: `headers_env` in [telemetry]: the variable `EMPTY` is not set",
        ),
        (
            "headers = { a = \"1\" }\nheaders_env = { A = \"SET\" }",
            "4: `headers_env` in [telemetry] repeats `A`",
        ),
    ] {
        check(&format!("{endpoint}{lines}"), &[problem]);
    }
    let many: Vec<_> = (0..33).map(|number| format!("h{number} = \"x\"")).collect();
    let many = format!("{endpoint}headers = {{ {} }}", many.join(", "));
    check(&many, &["3: there are more than 32 headers in [telemetry]"]);
    let with_key = parse("[telemetry]\nendpoint = \"https://user:sk-secret@h\"").unwrap_err();
    assert!(with_key.contains("`endpoint`") && !with_key.contains("sk-secret"), "{with_key}");
}
