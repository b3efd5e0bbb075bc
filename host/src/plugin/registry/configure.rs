//! Settings of a plugin, changed without a push.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::{Table, Value};

use super::{Entrance, Inner, Pushed, Refusal, Registry, log};
use crate::plugin::rollout;
use crate::plugin::versions::Replaced;

/// Changes of `[config]` of a manifest: a new value, or none for a setting that goes.
pub type Settings = BTreeMap<String, Option<String>>;

impl Registry {
    /// Has a plugin serve with other settings, which makes a new generation of the same component. Goes on when the caller is
    /// dropped.
    ///
    /// # Errors
    ///
    /// As [`Registry::push`].
    pub async fn configure(
        &self,
        name: &str,
        settings: Settings,
        changed_by: &str,
    ) -> Result<Pushed, Refusal> {
        let (registry, name, changed_by) = (self.clone(), name.to_owned(), changed_by.to_owned());
        let configure = async move {
            let _turn = registry.inner.turn(&name).lock_owned().await;
            let result = registry.inner.configure(&name, settings, &changed_by).await;
            log("settings", &name, &result);
            result
        };
        tokio::spawn(configure).await.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
    }
}

impl Inner {
    async fn configure(
        self: &Arc<Self>,
        name: &str,
        settings: Settings,
        changed_by: &str,
    ) -> Result<Pushed, Refusal> {
        let present = self.plugins.version(name).ok_or_else(|| Refusal::NoSuchPlugin(name.to_owned()))?;
        let manifest = changed(&present.manifest, settings)?;
        rollout::read_manifest(name, &manifest)?;
        let version = self.new_version(name, present.digest.clone(), manifest, changed_by);
        let loaded = self.load(&version).await?;
        self.end_canary(name, None, &format!("{changed_by} changed the settings")).await;
        let entrance = Entrance { init: true, canary: true, replaced: Replaced::Superseded };
        self.enter(version, loaded, entrance).await
    }
}

/// The manifest with other settings; of its text only what it says is kept.
fn changed(manifest: &str, settings: Settings) -> Result<String, Refusal> {
    let wrong = |error: &dyn std::fmt::Display| Refusal::Manifest(error.to_string());
    let mut table: Table = manifest.parse().map_err(|error: toml::de::Error| wrong(&error))?;
    let config = table.entry("config").or_insert_with(|| Value::Table(Table::new()));
    let config = config.as_table_mut().ok_or_else(|| wrong(&"[config] is no table"))?;
    for (key, value) in settings {
        match value {
            Some(value) => drop(config.insert(key, Value::String(value))),
            None => {
                let gone = config.remove(&key);
                gone.ok_or_else(|| wrong(&format!("[config] has no {key:?}")))?;
            }
        }
    }
    toml::to_string(&table).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Manifest;

    #[test]
    fn settings_change_and_everything_else_stays() {
        let text =
            "# note\nname = \"guest\"\norder = 5\n[config]\na = \"1\"\nb = \"2\"\n[grants]\nkv.x = \"read\"";
        let set =
            |key: &str, value: Option<&str>| Settings::from([(key.to_owned(), value.map(str::to_owned))]);
        let before = Manifest::parse(text).unwrap();
        let one = changed(text, set("a", Some("it's \"so\"\n"))).unwrap();
        let two = Manifest::parse(&changed(&one, set("b", None)).unwrap()).unwrap();
        assert_eq!(two.config, BTreeMap::from([("a".to_owned(), "it's \"so\"\n".to_owned())]));
        assert_eq!(Manifest { config: before.config.clone(), ..two }, before);
        assert!(changed(text, set("c", None)).unwrap_err().to_string().contains("no \"c\""));
        let new = changed("name = \"guest\"", set("a", Some("1"))).unwrap();
        assert_eq!(Manifest::parse(&new).unwrap().config.len(), 1);
    }
}
