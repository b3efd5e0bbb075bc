//! An index with a graph, from outside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::yield_now;
use tollgate_store::{Index, Metric, Store, Target, Vector, VectorMatch, VectorOptions, VectorQuery};

use super::support::{Random, near, report, score, vector};
use crate::{disk::Disk, support::Place};

const DIMENSIONS: usize = 16;

fn open(store: &Store) -> Index {
    let indexed = vec!["even".to_owned()];
    let options = VectorOptions { indexed, exact_up_to: 400, ..VectorOptions::new(DIMENSIONS) };
    store.index("a", options).unwrap()
}

/// One of many around thirty centres.
fn clustered(random: &mut Random) -> Vec<f32> {
    let mut centre = Random::new(random.next(30) * 31);
    (0..DIMENSIONS).map(|_| centre.value() + random.value() * 0.7).collect()
}

fn of_id(id: u64, random: &mut Random) -> Vector {
    let metadata = Some(format!("{{\"even\": {}}}", id.is_multiple_of(2)));
    Vector { metadata, ..vector(id, clustered(random)) }
}

async fn fill(index: &Index, ids: std::ops::Range<u64>, random: &mut Random) -> BTreeMap<String, Vec<f32>> {
    let vectors: Vec<Vector> = ids.map(|id| of_id(id, random)).collect();
    for part in vectors.chunks(500) {
        index.upsert(part.to_vec()).await.unwrap();
    }
    vectors.into_iter().map(|vector| (vector.id, vector.values)).collect()
}

/// Waits until the graph has so many vectors.
async fn graph_of(index: &Index, wanted: std::ops::Range<u64>) {
    while !wanted.contains(&index.describe().await.unwrap().graph_vectors) {
        yield_now().await;
    }
}

/// The share of the ten nearest that queries find.
async fn recall(index: &Index, vectors: &BTreeMap<String, Vec<f32>>, filter: Option<bool>) -> f64 {
    let mut random = Random::new(99);
    let mut hits = 0;
    for _ in 0..20 {
        let target = clustered(&mut random);
        let filter_text = filter.map(|even| format!("{{\"even\": {even}}}"));
        let query = VectorQuery { filter: filter_text, ..near(target.clone(), 10) };
        let found = index.query(query).await.unwrap();
        assert_eq!(found.len(), 10);
        let takes = |id: &str| filter.is_none_or(|even| (id.parse::<u64>().unwrap() % 2 == 0) == even);
        let mut scores: Vec<f64> = vectors
            .iter()
            .filter(|(id, _)| takes(id))
            .map(|(_, values)| score(Metric::Cosine, &target, values))
            .collect();
        scores.sort_by(|left, right| right.total_cmp(left));
        for VectorMatch { id, score: told, .. } in &found {
            assert!(takes(id));
            assert!((told - score(Metric::Cosine, &target, &vectors[id])).abs() < 1e-9);
            hits += u32::from(*told >= scores[9] - 1e-9);
        }
    }
    f64::from(hits) / 200.0
}

async fn assert_found(index: &Index, vectors: &BTreeMap<String, Vec<f32>>) {
    for filter in [None, Some(true)] {
        let recall = recall(index, vectors, filter).await;
        assert!(recall >= 0.95, "{filter:?}: {recall}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_grows_with_the_index_and_goes_with_its_vectors() {
    let store = Place::new().open();
    let index = open(&store);
    let mut random = Random::new(1);
    let mut vectors = fill(&index, 0..400, &mut random).await;
    assert_eq!((recall(&index, &vectors, None).await, graph_vectors(&index).await), (1.0, 0));
    vectors.extend(fill(&index, 400..1_500, &mut random).await);
    // Queries find everything while it is built.
    assert_found(&index, &vectors).await;
    graph_of(&index, 1_000..1_501).await;
    assert_found(&index, &vectors).await;
    // A third is replaced: another graph takes over.
    vectors.extend(fill(&index, 0..500, &mut random).await);
    assert_found(&index, &vectors).await;
    graph_of(&index, 1_300..1_501).await;
    assert_found(&index, &vectors).await;
    let report_now = report(&index).await;
    assert_eq!(report_now.vectors, 1_500);
    // What was written is found at once, wherever it stands.
    for id in [3, 700, 5_000] {
        let one = of_id(id, &mut random);
        index.upsert(vec![one.clone()]).await.unwrap();
        assert_eq!(index.query(near(one.values, 1)).await.unwrap()[0].id, id.to_string());
    }
    let ids: Vec<String> = (100..1_500).map(|id: u64| id.to_string()).collect();
    for part in ids.chunks(700) {
        index.delete_by_ids(part).await.unwrap();
    }
    graph_of(&index, 0..1).await;
    assert_eq!(report(&index).await.vectors, 101);
    let by_id = VectorQuery { top_k: 100, ..VectorQuery::new(Target::Id("5000".to_owned())) };
    assert_eq!(index.query(by_id).await.unwrap().len(), 100);
}

async fn graph_vectors(index: &Index) -> u64 {
    index.describe().await.unwrap().graph_vectors
}

/// The graph is not on the disk: it is built again, and queries find everything from the first on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_failure_the_graph_catches_up_with_the_store() {
    let mut disk = Disk::default();
    let mut random = Random::new(2);
    let mut vectors = BTreeMap::new();
    for round in 0..3 {
        let store = disk.open(false);
        let index = open(&store);
        vectors.extend(fill(&index, round * 400..round * 400 + 900, &mut random).await);
        graph_of(&index, 401..2_000).await;
        // With a change under way.
        let late = tokio::spawn({
            let index = index.clone();
            async move { index.delete_by_ids(&["none".to_owned()]).await }
        });
        disk = disk.after_power_failure(&mut || round % 2 == 0);
        let _ = late.await.unwrap();

        let store = disk.open(false);
        let index = open(&store);
        assert_found(&index, &vectors).await;
        graph_of(&index, 401..2_000).await;
        assert_found(&index, &vectors).await;
        assert_eq!(report(&index).await.vectors, vectors.len() as u64);
        store.close().await.unwrap();
    }
}

/// Vectors come and go while others search: who searches finds what was there all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn searches_go_on_while_the_graph_is_built_under_writers() {
    let store = Place::new().open();
    let index = open(&store);
    let mut random = Random::new(3);
    let lasting = fill(&index, 0..800, &mut random).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..3u64)
        .map(|writer| {
            let (index, stop) = (index.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut random = Random::new(writer * 1_000);
                while !stop.load(Ordering::SeqCst) {
                    let ids = writer * 10_000..writer * 10_000 + 300;
                    fill(&index, ids.clone(), &mut random).await;
                    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
                    index.delete_by_ids(&ids[..200]).await.unwrap();
                }
            })
        })
        .collect();
    let mut found = 0;
    for round in 0..200 {
        let (id, values) = lasting.iter().nth(round * 4).unwrap();
        let matches = index.query(near(values.clone(), 5)).await.unwrap();
        assert_eq!(matches.len(), 5);
        found += usize::from(matches[0].id == *id);
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(found >= 195, "{found} of 200");
    graph_of(&index, 401..2_000).await;
    report(&index).await;
}
