//! Power failures: the machine stops at any change of the disk, and any part of what was not synced is lost.

use std::sync::Arc;

use tollgate_store::{Compaction, Options};

use super::{
    rounds,
    world::{Turns, Work, World},
};
use crate::{disk::Disk, vector::support::Random};

/// Works until the power is gone, and notes what was acknowledged before.
async fn work_until_power_failure(disk: &Disk, two_phase: bool, acknowledged: &Arc<Turns>) {
    let world = World::open(disk.open(two_phase), false).await.unwrap();
    let found = world.all_found().await;
    let workers = Work::ALL.map(|work| {
        let (world, disk, acknowledged) = (world.clone(), disk.clone(), Arc::clone(acknowledged));
        let mut turn = found.get(work);
        tokio::spawn(async move {
            while !disk.is_cut() {
                turn += 1;
                world.turn(work, turn).await.unwrap();
                if !disk.is_cut() {
                    acknowledged.set(work, turn);
                }
            }
        })
    });
    for worker in workers {
        worker.await.unwrap();
    }
    world.store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_survives_power_failures_and_fits_together() {
    let mut random = Random::new(2);
    let acknowledged = Arc::new(Turns::default());
    let mut disk = Disk::default();
    for round in 1..=rounds(20) {
        // Some fail while the store is being opened.
        disk.cut_power_after(1 + random.next(if round % 5 == 0 { 30 } else { 1_500 }));
        work_until_power_failure(&disk, round % 2 == 0, &acknowledged).await;
        // Disks that had written nearly nothing of it, nearly all, and anything between.
        let of_ten = 1 + random.next(9);
        disk = disk.after_power_failure(&mut || random.next(10) < of_ten);
        if round % 8 == 0 {
            let options = disk.options(Options::default());
            let mut compaction = Compaction::open("unused".as_ref(), options).unwrap();
            compaction.check().unwrap();
            compaction.run().unwrap();
        }
        let world = World::open(disk.open(false), false).await.unwrap();
        world.check(&acknowledged).await;
        world.store.close().await.unwrap();
    }
}
