//! Compacting the store of a data directory that no server runs on.

use std::path::Path;

use anyhow::Context as _;
use tollgate_store::{Compacted, Compaction, Options, Store};

use super::data::DataDirectory;
use super::stores::{self, STORE};
use crate::admin::Trail;
use crate::config::limits::AUDIT_KEEP;

/// Gives free pages of the store's file back to the disk, once every page has proved to be sound. `step` is told what is
/// being done. Everything blocks; the data directory is held meanwhile, so that no server starts.
pub async fn compact(data: &Path, step: impl Fn(&'static str)) -> anyhow::Result<Compacted> {
    let path = data.join(STORE);
    anyhow::ensure!(path.is_file(), "there is no store in {}", data.display());
    let _data = DataDirectory::open(data)?;
    let what = || format!("cannot compact {}", path.display());
    step("opening");
    let mut compaction = Compaction::open(&path, Options::default()).with_context(what)?;
    step("checking every page");
    compaction.check().with_context(what)?;
    step("moving pages");
    let Compacted { before_bytes, .. } = compaction.run().with_context(what)?;
    record(&path).await.context("the store is compacted, but that does not stand in its audit log")?;
    let after_bytes = path.metadata().with_context(what)?.len();
    Ok(Compacted { before_bytes, after_bytes })
}

async fn record(path: &Path) -> anyhow::Result<()> {
    let options = Options::default();
    let clock = options.clock.clone();
    let store = Store::open(path, options)?;
    let trail = Trail::open(store.database(stores::GATEWAY)?, clock, AUDIT_KEEP).await?;
    trail.write("command line", "storage compact", "", None).await?;
    Ok(store.close().await?)
}
