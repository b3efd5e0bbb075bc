//! Whatever is asked is answered.

use std::fmt::Debug;

use tollgate_store::{Metric, Target, Vector, VectorError, VectorOptions, VectorQuery, vector::limits};

use super::support::{ids, index, near, report, vector};
use crate::support::Place;

fn text<T: Debug>(answer: Result<T, VectorError>) -> String {
    match answer {
        Err(VectorError::TooLarge(text) | VectorError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_over_a_limit_or_no_vector_is_refused_with_its_name() {
    let store = Place::new().open();
    let index = index(&store, "a", 3);
    let good = vector("a", vec![1.0; 3]);
    let refused = async |wrong: Vector| {
        // A good one before it is not written either.
        let one = text(index.upsert(vec![vector("first", vec![1.0; 3]), wrong.clone()]).await);
        assert_eq!(text(index.insert(vec![wrong]).await), one);
        one
    };
    for values in [vec![], vec![1.0; 2], vec![1.0; 4]] {
        let error = refused(vector("a", values.clone())).await;
        assert!(error.contains(&format!("vector \"a\" has {} values", values.len())), "{error}");
        assert!(text(index.query(near(values, 1)).await).contains("3 dimensions"));
    }
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(refused(vector("a", vec![0.0, number, 0.0])).await.contains("value 1 of vector \"a\""));
        let query = index.query(near(vec![0.0, 0.0, number], 1)).await;
        assert!(text(query).contains("value 2 of the query"));
    }
    let long = "x".repeat(limits::ID_BYTES + 1);
    for id in ["", &long] {
        assert!(refused(vector(id, vec![1.0; 3])).await.contains("an id"));
        let ids = [id.to_owned()];
        assert!(text(index.delete_by_ids(&ids).await).contains("an id"));
        assert!(text(index.get_by_ids(&ids).await).contains("an id"));
        assert!(text(index.query(VectorQuery::new(Target::Id(id.to_owned()))).await).contains("an id"));
    }
    for namespace in [String::new(), "x".repeat(limits::NAMESPACE_BYTES + 1)] {
        let named = Vector { namespace: Some(namespace.clone()), ..good.clone() };
        assert!(refused(named).await.contains("a namespace"));
        let query = VectorQuery { namespace: Some(namespace), ..near(vec![1.0; 3], 1) };
        assert!(text(index.query(query).await).contains("a namespace"));
    }
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(limits::METADATA_BYTES));
    for metadata in ["", "[]", "1", "{\"$a\": 1}", &large] {
        let wrong = Vector { metadata: Some(metadata.to_owned()), ..good.clone() };
        assert!(refused(wrong).await.contains("the metadata of vector \"a\""), "{metadata}");
    }
    for top_k in [0, limits::TOP_K + 1, usize::MAX] {
        assert!(text(index.query(near(vec![1.0; 3], top_k)).await).contains("top-k"));
    }
    for filter in ["", "{}", "{\"a\": 1}", &"[".repeat(100_000)] {
        let query = VectorQuery { filter: Some(filter.to_owned()), ..near(vec![1.0; 3], 1) };
        assert!(text(index.query(query).await).contains("filter"), "{filter}");
    }
    let many = vec!["a".to_owned(); limits::LIST_ITEMS + 1];
    assert!(text(index.delete_by_ids(&many).await).contains("1000 ids"));
    assert!(text(index.get_by_ids(&many[..=limits::GET_IDS]).await).contains("100 ids"));
    let many = (0..=limits::LIST_ITEMS).map(|id| vector(id, vec![1.0; 3])).collect();
    assert!(text(index.upsert(many).await).contains("1000 vectors"));
    assert!(text(index.upsert(vec![good.clone(), good]).await).contains("twice"));
    assert_eq!(report(&index).await.vectors, 0);
}

#[tokio::test]
async fn a_commit_of_vectors_is_bounded_and_so_is_an_index() {
    let store = Place::new().open();
    let wide = index(&store, "wide", limits::DIMENSIONS);
    let many = (0..500).map(|id| vector(id, vec![1.0; limits::DIMENSIONS])).collect();
    assert!(text(wide.upsert(many).await).contains("bytes"));
    assert_eq!(report(&wide).await.vectors, 0);
    let small = store.index("small", VectorOptions { vectors: 2, ..VectorOptions::new(1) }).unwrap();
    small.upsert(vec![vector("a", vec![1.0]), vector("b", vec![1.0])]).await.unwrap();
    assert!(
        text(small.upsert(vec![vector("a", vec![2.0]), vector("c", vec![1.0])]).await).contains("at most 2")
    );
    assert!(text(small.insert(vec![vector("c", vec![1.0])]).await).contains("at most 2"));
    // A full index still takes new values for what it has.
    small.upsert(vec![vector("b", vec![2.0]), vector("a", vec![3.0])]).await.unwrap();
    assert_eq!(report(&small).await.vectors, 2);
}

#[tokio::test]
async fn options_out_of_bounds_or_unlike_those_of_the_index_are_refused() {
    let place = Place::new();
    let store = place.open();
    let options = VectorOptions::new(2);
    let wrong = |change: fn(&mut VectorOptions)| {
        let mut options = options.clone();
        change(&mut options);
        text(store.index("wrong", options))
    };
    assert!(wrong(|options| options.dimensions = 0).contains("dimensions"));
    assert!(wrong(|options| options.dimensions = limits::DIMENSIONS + 1).contains("dimensions"));
    assert!(wrong(|options| options.vectors = limits::VECTORS_MOST + 1).contains("vectors"));
    assert!(wrong(|options| options.indexed = vec!["a".into(); 2]).contains("twice"));
    assert!(wrong(|options| options.indexed = (0..11).map(|n| n.to_string()).collect()).contains("10"));
    for name in ["", "a..b", ".a", "$a", "a.$b", &"x".repeat(10_000)] {
        let named = VectorOptions { indexed: vec![name.to_owned()], ..options.clone() };
        assert!(text(store.index("wrong", named)).contains("property"), "{name:?}");
    }
    assert!(text(store.index("", options.clone())).contains("name"));

    let index = store.index("a", options.clone()).unwrap();
    assert!(text(store.index("a", VectorOptions::new(3))).contains("other options"));
    index.upsert(vec![vector("a", vec![1.0, 2.0])]).await.unwrap();
    store.close().await.unwrap();
    let store = place.open();
    assert!(text(store.index("a", VectorOptions::new(3))).contains("2 dimensions and metric cosine"));
    let other = VectorOptions { metric: Metric::Euclidean, ..options.clone() };
    assert!(text(store.index("a", other)).contains("not 2 dimensions and metric euclidean"));
    // What is indexed and how many there may be is decided anew at each opening.
    let other = VectorOptions { indexed: vec!["kind".into()], vectors: 1, ..options };
    let index = store.index("a", other).unwrap();
    let query = VectorQuery { filter: Some(r#"{"kind": null}"#.into()), ..near(vec![1.0, 2.0], 1) };
    assert_eq!(ids(&index.query(query).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn extreme_values_are_ordered_like_others() {
    for metric in [Metric::Cosine, Metric::DotProduct, Metric::Euclidean] {
        let store = Place::new().open();
        let index = store.index("a", VectorOptions { metric, ..VectorOptions::new(2) }).unwrap();
        let tiny = f32::from_bits(1);
        let extremes =
            [[f32::MAX, f32::MAX], [f32::MIN, 0.0], [tiny, 0.0], [0.0, -tiny], [0.0, 0.0], [1.0, 1.0]];
        let vectors = extremes.iter().enumerate().map(|(id, values)| vector(id, values.to_vec()));
        index.upsert(vectors.collect()).await.unwrap();
        for values in extremes {
            let found = index.query(near(values.to_vec(), 10)).await.unwrap();
            assert_eq!(found.len(), 6);
            assert!(found.iter().all(|found| found.score.is_finite()), "{found:?}");
        }
        let found = index.query(near(vec![f32::MAX, f32::MAX], 10)).await.unwrap();
        assert_eq!(found[0].id, "0");
        report(&index).await;
    }
}
