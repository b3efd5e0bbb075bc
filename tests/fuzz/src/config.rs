//! The text of a `tollgate.toml`.

use tollgate::{
    config::{Config, ConfigError},
    secret::Secret,
};

/// The value of every variable of the environment that begins with `KEY`.
const FROM_ENVIRONMENT: &str = "sk-0123456789-from-the-environment";

/// Neither a configuration's debug form nor what is wrong with it shows a key, and each problem is one line of the file.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let environment = |name: &str| name.starts_with("KEY").then(|| FROM_ENVIRONMENT.to_owned());
    match Config::parse(text, "tollgate.toml", &environment) {
        Ok(config) => check_config(config),
        Err(error) => check_error(text, &error),
    }
}

fn check_config(mut config: Config) {
    let shown = format!("{config:?}");
    for account in &mut config.accounts {
        assert!(!account.api_key.expose().is_empty());
        account.api_key = Secret::new("another");
    }
    assert_eq!(format!("{config:?}"), shown, "a key is shown");
}

fn check_error(text: &str, error: &ConfigError) {
    let ConfigError::Invalid(problems) = error else { panic!("no file was read") };
    assert!(!problems.is_empty() && problems.is_sorted_by_key(|problem| problem.line));
    for problem in problems {
        assert!((1..=1 + text.matches('\n').count()).contains(&problem.line), "{problem}");
        assert!(!problem.message.is_empty() && !problem.message.contains(char::is_control), "{problem:?}");
    }
    let shown = error.to_string();
    assert!(text.contains(FROM_ENVIRONMENT) || !shown.contains(FROM_ENVIRONMENT), "{shown}");
    for key in keys(text) {
        assert!(!shown.contains(&key), "{key:?} is in {shown}");
    }
}

/// The keys in a file that stand nowhere else in it, and are long enough not to be there by chance.
fn keys(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let accounts = table.get("account").and_then(|accounts| accounts.as_array());
    let keys = accounts.into_iter().flatten().filter_map(|account| account.get("api_key")?.as_str());
    let is_alone = |key: &&str| key.len() >= 16 && text.matches(*key).count() == 1;
    keys.filter(is_alone).map(str::to_owned).collect()
}
