//! `[telemetry]`.

use std::collections::BTreeMap;
use std::path::Path;

use super::accounts::ca;
use super::limits;
use super::parse::Environment;
use super::reader::Section;
use crate::gateway::check_base_url;
use crate::secret::Secret;
use crate::telemetry::limits::HEADERS_MOST;
use crate::telemetry::{SERVICE, Settings, check_header};

const EXAMPLE: &str = "{ authorization = \"OTLP_AUTHORIZATION\" }";

/// None where something is wrong with it, which has been reported.
pub(super) fn telemetry(
    section: Section<'_>,
    directory: &Path,
    environment: Environment<'_>,
) -> Option<Settings> {
    let endpoint = endpoint(&section);
    let service_name = section.text("service_name");
    if let Some(name) = service_name
        && name.len() > limits::NAME_MOST_BYTES
    {
        let most = limits::NAME_MOST_BYTES;
        section
            .problem("service_name", format!("`service_name`{} has at most {most} bytes", section.place()));
    }
    let settings = Settings {
        endpoint: endpoint.clone().unwrap_or_default(),
        headers: headers(&section, environment),
        ca: ca(&section, directory),
        sample_ratio: section.part("sample_ratio").unwrap_or(1.0),
        service_name: service_name.unwrap_or(SERVICE).to_owned(),
    };
    section.finish();
    endpoint.map(|_| settings)
}

fn endpoint(section: &Section<'_>) -> Option<String> {
    match check_base_url(section.required_text("endpoint")?) {
        Ok(url) => Some(url),
        Err(rule) => {
            // What is in it is not told: people put keys into addresses.
            let rule = rule.replace("`https://llm.example.com/v1`", "`http://127.0.0.1:4318`");
            let rule = rule.replace("use `api_key`", "use `headers_env`");
            section.problem("endpoint", format!("`endpoint`{} {rule}", section.place()));
            None
        }
    }
}

/// Those that stand there, and those whose values are in variables.
fn headers(section: &Section<'_>, environment: Environment<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    let place = section.place();
    let mut add = |key: &'static str, name: String, value: &str| {
        let problem = match check_header(&name, value) {
            Err(rule) => format!("`{key}`{place}: `{name}` {rule}"),
            Ok(()) if headers.len() >= HEADERS_MOST => {
                format!("there are more than {HEADERS_MOST} headers{place}")
            }
            Ok(()) => match headers.insert(name.to_ascii_lowercase(), Secret::new(value)) {
                Some(_) => format!("`{key}`{place} repeats `{name}`"),
                None => return,
            },
        };
        section.problem(key, problem);
    };
    let plain = section.text_map("headers", "{ x-tenant = \"main\" }");
    plain.into_iter().flatten().for_each(|(name, value)| add("headers", name, &value));
    for (name, variable) in section.text_map("headers_env", EXAMPLE).into_iter().flatten() {
        match environment(&variable).filter(|value| !value.trim().is_empty()) {
            Some(value) => add("headers_env", name, value.trim()),
            None => section.problem(
                "headers_env",
                format!("`headers_env`{place}: the variable `{variable}` is not set"),
            ),
        }
    }
    headers
}
