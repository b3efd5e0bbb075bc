//! What queries answer.

use tollgate_store::{
    Index, Metric, ReturnMetadata, Target, Vector, VectorError, VectorMatch, VectorOptions, VectorQuery,
    vector::limits,
};

use super::support::{Random, ids, index, near, report, score, values, vector};
use crate::support::Place;

fn with(id: &str, values: Vec<f32>, namespace: Option<&str>, metadata: &str) -> Vector {
    let (namespace, metadata) = (namespace.map(str::to_owned), Some(metadata.to_owned()));
    Vector { id: id.to_owned(), values, namespace, metadata }
}

#[tokio::test]
async fn a_query_answers_what_it_was_asked_for() {
    let store = Place::new().open();
    let options =
        VectorOptions { indexed: vec!["kind".into(), "size.width".into()], ..VectorOptions::new(2) };
    let images = store.index("images", options).unwrap();
    let metadata = r#"{"url": "/1.png",  "kind": "photo", "size": {"width": 10, "height": 5}}"#;
    let one = with("1", vec![1.0, 0.0], None, metadata);
    let two = with("2", vec![1.0, 1.0], Some("b"), r#"{"kind": "drawing"}"#);
    let three = vector("3", vec![-1.0, 0.0]);
    images.upsert(vec![one.clone(), two.clone(), three.clone()]).await.unwrap();

    let found = images.query(near(vec![2.0, 0.0], 10)).await.unwrap();
    assert_eq!(ids(&found), ["1", "2", "3"]);
    assert_eq!((found[0].score, found[2].score), (1.0, -1.0));
    assert!((found[1].score - 0.5f64.sqrt()).abs() < 1e-9);
    let plain = |id: &str, score, namespace: Option<&str>| VectorMatch {
        id: id.to_owned(),
        score,
        namespace: namespace.map(str::to_owned),
        values: None,
        metadata: None,
    };
    assert_eq!(found[2], plain("3", -1.0, None));

    let by_id = VectorQuery { top_k: 1, ..VectorQuery::new(Target::Id("2".into())) };
    let everything =
        VectorQuery { return_values: true, return_metadata: ReturnMetadata::All, ..by_id.clone() };
    let found = images.query(everything.clone()).await.unwrap();
    assert_eq!(
        (found[0].values.as_ref(), found[0].metadata.as_ref()),
        (Some(&two.values), two.metadata.as_ref())
    );
    let found = images.query(VectorQuery { target: Target::Id("1".into()), ..everything }).await.unwrap();
    assert_eq!(found[0].metadata.as_deref(), Some(metadata));
    let indexed = VectorQuery { return_metadata: ReturnMetadata::Indexed, ..near(vec![1.0, 0.0], 3) };
    let found = images.query(indexed).await.unwrap();
    assert_eq!(found[0].metadata.as_deref(), Some(r#"{"kind":"photo","size":{"width":10}}"#));
    assert_eq!(found[2].metadata, None);

    let filter = |filter: &str| VectorQuery { filter: Some(filter.to_owned()), ..near(vec![1.0, 0.0], 3) };
    let found = images.query(filter(r#"{"kind": {"$ne": "photo"}}"#)).await.unwrap();
    assert_eq!(ids(&found), ["2", "3"]);
    let found = images.query(filter(r#"{"size.width": {"$gte": 10}, "kind": "photo"}"#)).await.unwrap();
    assert_eq!(ids(&found), ["1"]);
    let namespace = VectorQuery { namespace: Some("b".into()), ..filter(r#"{"kind": {"$ne": "x"}}"#) };
    assert_eq!(ids(&images.query(namespace).await.unwrap()), ["2"]);

    let asked = ["3", "none", "1", "3"].map(str::to_owned);
    assert_eq!(images.get_by_ids(&asked).await.unwrap(), [three.clone(), one, three]);
    let missing = images.query(VectorQuery { target: Target::Id("none".into()), ..by_id }).await;
    assert_eq!(missing, Err(VectorError::Absent("none".into())));
}

#[tokio::test]
async fn ids_are_replaced_inserted_and_removed() {
    let store = Place::new().open();
    let index = index(&store, "a", 2);
    assert_eq!(index.query(near(vec![1.0, 0.0], 10)).await.unwrap(), []);
    let by_id = VectorQuery::new(Target::Id("a".into()));
    assert_eq!(index.query(by_id).await, Err(VectorError::Absent("a".into())));
    index.insert(vec![vector("a", vec![1.0, 0.0]), vector("b", vec![0.0, 1.0])]).await.unwrap();
    let again = index.insert(vec![vector("c", vec![1.0, 1.0]), vector("b", vec![1.0, 1.0])]).await;
    assert_eq!(again, Err(VectorError::Conflict("b".into())));
    assert_eq!((values(&index, "b").await, values(&index, "c").await), (Some(vec![0.0, 1.0]), None));
    index.upsert(vec![vector("b", vec![0.0, 2.0]), vector("c", vec![1.0, 1.0])]).await.unwrap();
    assert_eq!(values(&index, "b").await, Some(vec![0.0, 2.0]));
    assert_eq!(ids(&index.query(near(vec![0.0, 1.0], 10)).await.unwrap()), ["b", "c", "a"]);
    let removed = ["a", "none", "b", "a"].map(str::to_owned);
    assert_eq!(index.delete_by_ids(&removed).await, Ok(2));
    assert_eq!(ids(&index.query(near(vec![0.0, 1.0], 10)).await.unwrap()), ["c"]);
    assert_eq!(report(&index).await.vectors, 1);
    for none in [index.upsert(vec![]).await, index.insert(vec![]).await] {
        none.unwrap();
    }
    assert_eq!(index.delete_by_ids(&[]).await, Ok(0));
}

/// Vectors around centres, as embeddings are, more than fit into a block; every tenth is replaced, every seventh removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_are_found_by_every_metric() {
    const DIMENSIONS: usize = 100;
    for metric in [Metric::Cosine, Metric::DotProduct, Metric::Euclidean] {
        let place = Place::new();
        let mut store = place.open();
        let options = VectorOptions { metric, ..VectorOptions::new(DIMENSIONS) };
        let mut index = store.index("a", options.clone()).unwrap();
        let mut random = Random::new(metric as u64);
        let centres: Vec<Vec<f32>> = (0..20).map(|_| random.values(DIMENSIONS)).collect();
        let around = |random: &mut Random| -> Vec<f32> {
            let centre = &centres[random.next(20) as usize];
            centre.iter().map(|value| value + random.value() * 0.3).collect()
        };
        let mut vectors: Vec<Vector> = (0..2_500).map(|id| vector(id, around(&mut random))).collect();
        for part in vectors.chunks(1_000) {
            index.upsert(part.to_vec()).await.unwrap();
        }
        let replaced: Vec<Vector> =
            vectors.iter().step_by(10).map(|old| vector(&old.id, around(&mut random))).collect();
        for (old, new) in vectors.iter_mut().step_by(10).zip(&replaced) {
            *old = new.clone();
        }
        index.upsert(replaced).await.unwrap();
        let removed: Vec<String> = vectors.iter().step_by(7).map(|vector| vector.id.clone()).collect();
        assert_eq!(index.delete_by_ids(&removed).await, Ok(removed.len()));
        vectors.retain(|vector| !removed.contains(&vector.id));

        for round in 0..20 {
            if round == 10 {
                store.close().await.unwrap();
                store = place.open();
                index = store.index("a", options.clone()).unwrap();
            }
            assert_nearest(&index, &vectors, around(&mut random)).await;
        }
        report(&index).await;
    }
}

/// The ten nearest are found, with their scores.
async fn assert_nearest(index: &Index, vectors: &[Vector], target: Vec<f32>) {
    let metric = index.options().metric;
    let mut expected: Vec<(f64, &str)> =
        vectors.iter().map(|vector| (score(metric, &target, &vector.values), vector.id.as_str())).collect();
    expected.sort_by(|left, right| match metric {
        Metric::Euclidean => left.0.total_cmp(&right.0),
        _ => right.0.total_cmp(&left.0),
    });
    let found = index.query(near(target, 10)).await.unwrap();
    assert_eq!(found.len(), 10);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.id, expected.1);
        assert!((found.score - expected.0).abs() < 1e-9, "{found:?} {expected:?}");
    }
}

/// All of them are rounded to a few hundred codes.
#[tokio::test]
async fn vectors_that_lie_closer_together_than_codes_can_tell_are_told_apart() {
    for metric in [Metric::Cosine, Metric::DotProduct, Metric::Euclidean] {
        let store = Place::new().open();
        let index = store.index("a", VectorOptions { metric, ..VectorOptions::new(4) }).unwrap();
        let mut random = Random::new(9);
        let mut one = || -> Vec<f32> {
            let mut small = || random.value() * 0.02;
            vec![1.0, small(), small(), small()]
        };
        let vectors: Vec<Vector> = (0..900).map(|id| vector(id, one())).collect();
        index.upsert(vectors.clone()).await.unwrap();
        for _ in 0..20 {
            assert_nearest(&index, &vectors, one()).await;
        }
    }
}

#[tokio::test]
async fn an_index_describes_itself() {
    let store = Place::new().open();
    let options = VectorOptions { metric: Metric::Euclidean, ..VectorOptions::new(8) };
    let index = store.index("a", options).unwrap();
    let empty = index.describe().await.unwrap();
    assert_eq!((empty.vectors, empty.memory_bytes, empty.recall), (0, 0, None));
    let mut random = Random::new(1);
    index.upsert((0..50).map(|id| vector(id, random.values(8))).collect()).await.unwrap();
    index.query(near(random.values(8), 3)).await.unwrap();
    let info = loop {
        // The sample is taken after the answer.
        let info = index.describe().await.unwrap();
        if info.recall.is_some() {
            break info;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((info.dimensions, info.metric, info.vectors), (8, Metric::Euclidean, 50));
    assert_eq!((info.value_bytes, info.recall), (50 * 8 * 4, Some(1.0)));
    assert!((50 * 8..50 * 100).contains(&info.memory_bytes), "{info:?}");
}

/// The same vectors are written again and again: memory has room for the living and a bounded part of dead ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_leaves_neither_dead_nor_wrong_vectors() {
    let place = Place::new();
    let store = place.open();
    let index = index(&store, "a", 4);
    let mut random = Random::new(5);
    for round in 0..40 {
        let vectors =
            (0..100).map(|id| vector(id * 7 % 600 + round % 3, vec![round as f32, 1.0, id as f32, 0.5]));
        index.upsert(vectors.collect()).await.unwrap();
        let removed: Vec<String> = (0..20).map(|_| random.next(700).to_string()).collect();
        index.delete_by_ids(&removed).await.unwrap();
        let report = report(&index).await;
        let most = (report.vectors + report.dead) * limits::DEAD_PERCENT as u64 / 100;
        assert!(report.dead <= most, "{report:?}");
    }
}
