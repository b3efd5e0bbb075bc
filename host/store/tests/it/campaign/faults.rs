//! A disk that fails at any step of any operation, for once or for good: who asked is told, nobody waits for ever, and when the
//! disk works again, everything acknowledged is there and fits together.

use std::{error::Error, io::ErrorKind, time::Duration};

use tokio::time::timeout;
use tollgate_store::{BlobList, Compaction, Options};

use super::{
    Fallible, files, rounds,
    world::{Turns, Work, World},
};
use crate::{
    disk::{Disk, Fault, Steps},
    vector::support::Random,
};

/// Turns that are there before.
const BEFORE: u64 = 3;

/// Nothing is read from memory that can be read from the disk.
fn uncached() -> Options {
    Options { cache_bytes: 0, kv_cache_bytes: 0, ..Options::default() }
}

/// A store that was not closed.
async fn crashed() -> Disk {
    let disk = Disk::default();
    let world = World::open(disk.open(false), false).await.unwrap();
    for turn in 1..=BEFORE {
        for work in Work::ALL {
            world.turn(work, turn).await.unwrap();
        }
    }
    disk.after_kill()
}

/// Opens, does everything there is to do, closes, and compacts; what fails is passed over. Returns what was acknowledged.
async fn do_everything(disk: &Disk) -> Turns {
    let acknowledged = Turns::default();
    Work::ALL.iter().for_each(|work| acknowledged.set(*work, BEFORE));
    match disk.try_open(uncached()) {
        Ok(store) => {
            match World::open(store.clone(), false).await {
                Ok(world) => {
                    for work in Work::ALL {
                        if told(world.turn(work, BEFORE + 1).await) {
                            acknowledged.set(work, BEFORE + 1);
                        }
                    }
                    read_everything(&world).await;
                }
                error => drop(told(error.map(|_| ()))),
            }
            told(store.close().await.map_err(Into::into));
        }
        Err(error) => assert!(is_of_the_disk(&error), "{error:?}"),
    }
    disk.released().await;
    match Compaction::open("unused".as_ref(), disk.options(uncached())) {
        Ok(mut compaction) => {
            let done = compaction.check().and_then(|()| compaction.run());
            told(done.map(|_| ()).map_err(Into::into));
        }
        Err(error) => assert!(is_of_the_disk(&error), "{error:?}"),
    }
    disk.released().await;
    acknowledged
}

async fn read_everything(world: &World) {
    for work in Work::ALL {
        told(world.found(work).await.map(|_| ()));
    }
    told(read_kv(world).await);
    told(read_rows(world).await);
    told(read_objects(world).await);
    told(report(world).await);
}

async fn read_kv(world: &World) -> Fallible<()> {
    world.relaxed.list_keys(None, None, 1_000).await?;
    let snapshot = world.store.snapshot().await?;
    snapshot.get(&world.durable, "turn").await?;
    let mut entries = snapshot.entries(&world.durable, "")?;
    while entries.next().await?.is_some() {}
    Ok(world.store.flush().await?)
}

async fn read_rows(world: &World) -> Fallible<()> {
    let mut pages = world.database.pages("SELECT * FROM t".into()).await?;
    while pages.next().await?.is_some() {}
    for database in [&world.database, &world.imported] {
        files::export(database).await?;
    }
    Ok(())
}

async fn read_objects(world: &World) -> Fallible<()> {
    world.blobs.list(BlobList::default()).await?;
    world.blobs.head("last").await?;
    assert_eq!(world.blobs.check(true).await?.problems, [""; 0]);
    assert_eq!(world.index.check().await?.problems, [""; 0]);
    Ok(())
}

async fn report(world: &World) -> Fallible<()> {
    for (kind, name) in world.store.names().await? {
        let report = world.store.report(kind, &name, true, ()).await?;
        assert_eq!(report.unwrap().problems(), [""; 0], "{kind:?} {name}");
    }
    world.store.file_report(()).await?;
    Ok(())
}

/// True: it was done. What was not done says that it is because of the disk.
fn told(done: Fallible<()>) -> bool {
    let Err(error) = done else { return true };
    assert!(is_of_the_disk(&*error), "{error:?}");
    false
}

fn is_of_the_disk(error: &(dyn Error + 'static)) -> bool {
    let text = error.to_string();
    ["the disk failed", "the disk is full", "the queue has ended"].iter().any(|told| text.contains(told))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_step_fails_is_told_and_nothing_acknowledged_is_lost() {
    let before = crashed().await;
    let whole = before.after_kill();
    let all = do_everything(&whole).await;
    assert!(Work::ALL.iter().all(|work| all.get(*work) == BEFORE + 1), "{all:?}");
    let (steps, mut random) = (whole.steps(), Random::new(3));
    assert!(steps.reads > 1_000 && steps.changes > 100, "{steps:?}");
    let rounds = rounds(20);
    for round in 0..rounds {
        // Evenly over all steps, each time a little elsewhere; changes more often, since there are fewer of them.
        let mut step = |steps: u64| {
            let width = (steps / rounds).max(1);
            1 + (steps * round / rounds + random.next(width)).min(steps)
        };
        let fails_at = if round % 3 == 0 {
            Steps { reads: step(steps.reads), changes: 0 }
        } else {
            Steps { reads: 0, changes: step(steps.changes) }
        };
        let kind = [ErrorKind::Other, ErrorKind::StorageFull][(round / 2 % 2) as usize];
        let fault = Fault { at: fails_at, stays: round % 2 == 0, kind };
        let disk = before.after_kill();
        disk.fail(fault);
        let acknowledged = timeout(Duration::from_secs(120), do_everything(&disk)).await;
        let acknowledged = acknowledged.unwrap_or_else(|_| panic!("somebody waits for ever: {fault:?}"));
        let killed = disk.after_kill();
        let failed = disk.after_power_failure(&mut || random.next(2) == 0);
        for disk in [killed, failed] {
            let world = World::open(disk.open(false), false).await.unwrap();
            world.check(&acknowledged).await;
            world.store.close().await.unwrap();
        }
    }
}
