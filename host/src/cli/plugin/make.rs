//! `tollgate plugin new` and `build`.

use std::path::Path;

use super::args::PluginNew;
use crate::build;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::project;

/// Makes a project, and says how to go on.
pub(in crate::cli) fn new(new: &PluginNew) -> Result<(), Failure> {
    let PluginNew { name, hook, lang } = new;
    let files = project::create(name, *hook, *lang, Path::new("."))?;
    let mut text = format!("{name}/ has {} files; next:\n  cd {name}\n", files.len());
    let then = if hook.has_cases() { "tollgate plugin test" } else { "tollgate plugin check" };
    for step in build::preparation(*lang).into_iter().chain(["tollgate plugin build", then]) {
        text.push_str(&format!("  {step}\n"));
    }
    Ok(output::print(text.as_bytes())?)
}

/// Builds the plugin whose folder this is, or else those of a folder of plugins that is here or is this.
pub(in crate::cli) fn build(names: &[String]) -> Result<(), Failure> {
    let (here, inner) = (Path::new("."), Path::new("plugins"));
    let workspace = if inner.join("Cargo.toml").is_file() { inner } else { here };
    let built = if workspace == here && here.join("plugin.toml").is_file() {
        if !names.is_empty() {
            return Err(Failure::Usage("this is the folder of one plugin; leave the names out".to_owned()));
        }
        vec![build::build_project(here)?]
    } else if !workspace.join("Cargo.toml").is_file() {
        return Err(Failure::Usage(
            "there is no plugin here; go to a plugin's folder, or make one with `tollgate plugin new`"
                .to_owned(),
        ));
    } else {
        build::build(names, workspace)?
    };
    for built in built {
        let line = format!("{}: {} bytes, digest {}\n", built.path.display(), built.size, built.digest);
        output::print(line.as_bytes())?;
    }
    Ok(())
}
