//! From a file's text to a [`Config`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

use super::accounts::accounts;
use super::error::{ConfigError, Problem};
use super::reader::{Section, Source};
use super::stores::{blob, cache, engine, in_memory, kv, kv_sections, named, sql, sql_sections, vector};
use super::telemetry::telemetry;
use super::{Config, MasterKeySource, Plugin, PluginSettings, Storage, limits};
use crate::accounting::Retention;
use crate::gateway::{
    Price, Settings, Strategy as AccountStrategy,
    limits::{HEALTH_INTERVAL_LEAST, QUEUE_REQUESTS_MOST},
};
use crate::plugin::PublicKey;
use crate::plugin::limits::{KEPT_VERSIONS_LEAST, KEPT_VERSIONS_MOST, TRUSTED_KEYS};
use crate::secret::Secret;
use crate::secrets::Key;

pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `directory` is where relative paths count from.
pub(super) fn parse(
    text: &str,
    file: &str,
    directory: &Path,
    environment: Environment<'_>,
) -> Result<Config, ConfigError> {
    let source = Source::new(file, text);
    let table = DeTable::parse(text).map_err(|error| ConfigError::Invalid(vec![syntax(&source, &error)]))?;
    let config = top(Section::top(&source, &table), directory, environment);
    let problems = source.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
}

fn syntax(source: &Source<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or_default();
    let quoted = source.text.get(span.clone()).filter(|_| error.message().contains("duplicate key"));
    let message = match quoted {
        Some(key) => format!("duplicate key `{}`", key.trim()),
        // The parser's messages have several lines; one problem is one line.
        None => error.message().replace('\n', ", "),
    };
    source.problem(span.start, &message)
}

fn top(section: Section<'_>, directory: &Path, environment: Environment<'_>) -> Config {
    let defaults = Config::default();
    let config = Config {
        listen: listen(&section).unwrap_or(defaults.listen),
        data: section.text("data").map_or(defaults.data, |path| directory.join(path)),
        workers: section.number("workers", 1..=limits::WORKERS_MOST).and_then(|n| n.try_into().ok()),
        log: log(&section),
        gateway: section.section("gateway").map_or(defaults.gateway, gateway),
        storage: section.section("storage").map_or(defaults.storage, storage),
        secrets: section
            .section("secrets")
            .map_or(defaults.secrets, |section| secrets(section, directory, environment)),
        audit_keep: section.section("audit").and_then(audit_keep).unwrap_or(defaults.audit_keep),
        retention: section.section("retention").map_or(defaults.retention, retention),
        telemetry: section
            .section("telemetry")
            .and_then(|section| telemetry(section, directory, environment)),
        accounts: accounts(section.sections("account"), directory, environment),
        prices: prices(section.sections("price")),
        plugins: plugins(section.sections("plugin"), directory),
        plugin_settings: section.section("plugins").map_or(defaults.plugin_settings, plugin_settings),
        kv: named(kv_sections(&section), kv),
        sql: named(sql_sections(&section), sql),
        blob: named(section.named_sections("blob"), blob),
        vector: named(section.named_sections("vector"), vector),
        cache: named(section.named_sections("cache"), cache),
    };
    in_memory(&section, &config);
    section.finish();
    config
}

fn listen(section: &Section<'_>) -> Option<SocketAddr> {
    let text = section.text("listen")?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let right = "an IP address and a port, such as `127.0.0.1:8080`";
            section.problem("listen", format!("`listen` must be {right}"));
            None
        }
    }
}

fn log(section: &Section<'_>) -> Option<String> {
    let text = section.text("log")?;
    if let Err(error) = EnvFilter::try_new(text) {
        section
            .problem("log", format!("`log` is no filter such as `debug` or `tollgate=debug,info`: {error}"));
    }
    Some(text.to_owned())
}

fn gateway(section: Section<'_>) -> Settings {
    let defaults = Settings::default();
    let timeout = |key, default| {
        section.number(key, 1..=limits::TIMEOUT_MOST_MS).map_or(default, Duration::from_millis)
    };
    let most = limits::BODY_LIMIT_MOST_BYTES;
    let settings = Settings {
        body_bytes: bytes(&section, "body_limit_bytes", most, defaults.body_bytes),
        body_timeout: timeout("body_timeout_ms", defaults.body_timeout),
        connect_timeout: timeout("connect_timeout_ms", defaults.connect_timeout),
        first_byte_timeout: timeout("first_byte_timeout_ms", defaults.first_byte_timeout),
        answer_timeout: timeout("answer_timeout_ms", defaults.answer_timeout),
        idle_timeout: timeout("idle_timeout_ms", defaults.idle_timeout),
        stall_timeout: timeout("stall_timeout_ms", defaults.stall_timeout),
        total_timeout: timeout("total_timeout_ms", defaults.total_timeout),
        queue_requests: section
            .number("queue_requests", 0..=QUEUE_REQUESTS_MOST as u64)
            .map_or(defaults.queue_requests, |number| number as usize),
        queue_timeout: timeout("queue_timeout_ms", defaults.queue_timeout),
        strategy: section.choice("strategy", &AccountStrategy::NAMED).unwrap_or(defaults.strategy),
        health_interval: section
            .number("health_interval_ms", HEALTH_LEAST_MS..=limits::TIMEOUT_MOST_MS)
            .map(Duration::from_millis),
        sticky_sessions: section.flag("sticky_sessions").unwrap_or(defaults.sticky_sessions),
    };
    section.finish();
    settings
}

const HEALTH_LEAST_MS: u64 = HEALTH_INTERVAL_LEAST.as_millis() as u64;

fn storage(section: Section<'_>) -> Storage {
    let defaults = Storage::default();
    let most = limits::CACHE_MOST_BYTES;
    let storage = Storage {
        engine: engine(&section),
        page_cache_bytes: bytes(&section, "page_cache_bytes", most, defaults.page_cache_bytes),
        kv_cache_bytes: section.number("kv_cache_bytes", 0..=most).unwrap_or(defaults.kv_cache_bytes),
        event_queue_bytes: section
            .number("event_queue_bytes", 1..=most)
            .unwrap_or(defaults.event_queue_bytes),
        two_phase: section.flag("two_phase").unwrap_or(defaults.two_phase),
        memory_bytes: section
            .number("memory_bytes", limits::MEMORY_LEAST_BYTES..=most)
            .unwrap_or(defaults.memory_bytes),
    };
    section.finish();
    storage
}

fn bytes(section: &Section<'_>, key: &'static str, most: u64, default: usize) -> usize {
    section.number(key, 1..=most).and_then(|number| number.try_into().ok()).unwrap_or(default)
}

fn audit_keep(section: Section<'_>) -> Option<Duration> {
    let keep = days(&section, "keep_days");
    section.finish();
    keep
}

fn retention(section: Section<'_>) -> Retention {
    let retention = Retention {
        request_logs: days(&section, "request_logs_days"),
        error_logs: days(&section, "error_logs_days"),
        statistics: days(&section, "statistics_days"),
    };
    section.finish();
    retention
}

fn days(section: &Section<'_>, key: &'static str) -> Option<Duration> {
    let days = section.number(key, 1..=limits::KEEP_MOST_DAYS)?;
    Some(Duration::from_secs(days * 24 * 60 * 60))
}

fn secrets(section: Section<'_>, directory: &Path, environment: Environment<'_>) -> MasterKeySource {
    let (file, variable) = (section.text("key_file"), section.text("key_env"));
    let prompt = section.flag("key_prompt").unwrap_or(false);
    let given = [file.is_some(), variable.is_some(), prompt].into_iter().filter(|given| *given).count();
    if given > 1 {
        section.report("[secrets]: give one of `key_file`, `key_env` and `key_prompt`".to_owned());
    }
    let source = match (file, variable) {
        (Some(path), _) => MasterKeySource::File(directory.join(path)),
        (None, Some(variable)) => {
            let value = Secret::new(environment(variable).unwrap_or_default().trim());
            match Key::parse(value.expose()) {
                Some(_) => {}
                None if value.is_empty() => section.problem(
                    "key_env",
                    format!("`key_env` in [secrets]: the variable `{variable}` is not set"),
                ),
                None => section.problem(
                    "key_env",
                    format!("`key_env` in [secrets]: `{variable}` must hold 64 hexadecimal digits, as of `openssl rand -hex 32`"),
                ),
            }
            MasterKeySource::Given { digits: value, origin: format!("the variable {variable}") }
        }
        (None, None) if prompt => MasterKeySource::Prompt,
        (None, None) => MasterKeySource::Beside,
    };
    section.finish();
    source
}

fn prices(sections: Vec<Section<'_>>) -> Vec<(String, Price)> {
    let mut models = BTreeSet::new();
    let mut prices = Vec::new();
    for section in sections {
        let price = price(&section);
        let model = section.required_text("model");
        let place = section.place();
        match model {
            Some(model) if model.len() > limits::MODEL_MOST_BYTES => {
                let most = limits::MODEL_MOST_BYTES;
                section.problem("model", format!("`model`{place} must have at most {most} bytes"));
            }
            Some(model) if !models.insert(model) => {
                section.problem("model", format!("`model`{place} repeats `{model}`"));
            }
            Some(model) => prices.extend(price.map(|price| (model.to_owned(), price))),
            None => {}
        }
        section.finish();
    }
    prices
}

fn price(section: &Section<'_>) -> Option<Price> {
    for key in ["input", "output"] {
        if !section.has(key) {
            section.report(format!("missing `{key}`{}; write 0 for what is free", section.place()));
        }
    }
    let (input, output) = (section.money("input"), section.money("output"));
    let (cache_write, cache_read) = (section.money("cache_write"), section.money("cache_read"));
    let (input, output) = (input?, output?);
    // What a provider does not price apart it charges as input.
    let (cache_write, cache_read) = (cache_write.unwrap_or(input), cache_read.unwrap_or(input));
    Some(Price { input, output, cache_write, cache_read })
}

fn plugins(sections: Vec<Section<'_>>, directory: &Path) -> Vec<Plugin> {
    let mut names = BTreeSet::new();
    let mut plugins = Vec::new();
    for section in sections {
        let name = section.required_name("name");
        let file = section.text("file");
        let manifest = section.text("manifest");
        let enabled = section.flag("enabled").unwrap_or(true);
        if manifest.is_some() && file.is_none() {
            section.problem("manifest", format!("`manifest`{} needs `file`", section.place()));
        }
        if let Some(name) = name {
            if !names.insert(name) {
                section.problem("name", format!("`name`{} repeats `{name}`", section.place()));
            }
            plugins.push(Plugin {
                name: name.to_owned(),
                file: file.map(|path| directory.join(path)),
                manifest: manifest.map(|path| directory.join(path)),
                enabled,
            });
        }
        section.finish();
    }
    plugins
}

fn plugin_settings(section: Section<'_>) -> PluginSettings {
    let defaults = PluginSettings::default();
    let versions = u64::from(KEPT_VERSIONS_LEAST)..=u64::from(KEPT_VERSIONS_MOST);
    let keep_versions = section.number("keep_versions", versions).and_then(|number| number.try_into().ok());
    let keys = section.texts("trusted_keys").unwrap_or_default();
    if keys.len() > TRUSTED_KEYS {
        section.problem(
            "trusted_keys",
            format!("`trusted_keys`{} has more than {TRUSTED_KEYS} keys", section.place()),
        );
    }
    let mut trusted_keys = Vec::new();
    for (number, key) in (1..).zip(&keys) {
        match PublicKey::parse(key) {
            Some(key) => trusted_keys.push(key),
            // Not quoted: it may be a secret one.
            None => section.problem(
                "trusted_keys",
                format!(
                    "`trusted_keys`{}: key {number} is no public key, `ed25519:` and 64 hexadecimal digits, as \
                     `tollgate plugin keygen` prints it",
                    section.place()
                ),
            ),
        }
    }
    section.finish();
    PluginSettings { keep_versions: keep_versions.unwrap_or(defaults.keep_versions), trusted_keys }
}
