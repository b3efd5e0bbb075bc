//! What a graph finds, held against the vectors themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Builder, Plan, find,
    links::scatter,
    nodes::{Node, Nodes},
};
use crate::vector::{
    Metric,
    block::Row,
    code::Code,
    memory::{Memory, Moment},
    search::{Wanted, candidates},
    space::{Aim, Space},
};

const DIMENSIONS: usize = 32;
/// Dimensions of vectors in all directions.
const SPREAD: usize = 64;
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::DotProduct, Metric::Euclidean];

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % most as u64) as usize
    }

    /// From -1 to 1.
    fn value(&mut self) -> f32 {
        self.next(2_000_001) as f32 / 1_000_000.0 - 1.0
    }

    /// One of many vectors around 40 centres, as embeddings are, of different lengths.
    fn clustered(&mut self) -> Vec<f32> {
        let mut centre = Self(self.next(40) as u64 * 77 + 5);
        let length = (0..4).map(|_| self.value() * 0.25).sum::<f32>().exp();
        (0..DIMENSIONS).map(|_| (centre.value() + self.value() * 0.7) * length).collect()
    }

    /// Of this length, in any direction.
    fn spread(&mut self, length: f32) -> Vec<f32> {
        // Sums of a few are nearly normal, and those lead into all directions alike.
        let values: Vec<f32> = (0..SPREAD).map(|_| (0..4).map(|_| self.value()).sum()).collect();
        let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.into_iter().map(|value| value / norm * length).collect()
    }
}

/// The namespace of a vector: what filters ask about.
type Naming = fn(u64, &[f32]) -> &'static str;

/// Makes a vector.
type Making = fn(&mut Random) -> Vec<f32>;

/// An index in memory, whose commits are made by hand.
struct World {
    memory: Memory,
    metric: Metric,
    naming: Naming,
    moment: Moment,
    /// The living, by their slots.
    values: BTreeMap<u64, Vec<f32>>,
}

impl World {
    fn new(metric: Metric, dimensions: usize, naming: Naming) -> Self {
        let space = Space::new(metric, dimensions);
        let memory = Memory::new(Vec::new(), Plan { space, exact_up_to: 600, builder: Arc::default() });
        Self { memory, metric, naming, moment: Moment::default(), values: BTreeMap::new() }
    }

    /// One commit, and all that the builder has to do then.
    fn commit(&mut self, added: impl IntoIterator<Item = Vec<f32>>, removed: &[u64]) {
        self.moment.sequence += 1;
        for values in added {
            let slot = self.moment.next_slot;
            self.moment.next_slot += 1;
            let namespace = Some((self.naming)(slot, &values).into());
            self.memory.add(Row { slot, code: Code::of(&values), namespace, cells: Vec::new() });
            self.values.insert(slot, values);
        }
        for slot in removed {
            self.values.remove(slot);
            self.memory.remove(*slot, self.moment.sequence);
        }
        self.memory.publish();
        self.memory.tidy();
        while self.memory.step() {}
    }

    /// How near those are that are found, and how near the nearest are; and whether the graph was used.
    fn answer(&self, values: &[f32], namespace: Option<&str>) -> (Vec<f64>, Vec<f64>, bool) {
        let wanted = Wanted {
            values: values.to_vec(),
            top_k: 10,
            namespace: namespace.map(str::to_owned),
            filter: None,
        };
        let (view, stop, plan) = (self.memory.view(), AtomicBool::new(false), &self.memory.plan);
        let code = Code::of(values);
        let aim = Aim { code: &code.numbers, fact: code.fact };
        let used = find(&view, plan, &wanted, self.moment, aim, &stop).is_some();
        let nearest = |slots: &mut dyn Iterator<Item = u64>| {
            let mut near: Vec<f64> =
                slots.map(|slot| self.metric.exact(values, &self.values[&slot])).collect();
            near.sort_by(|left, right| right.total_cmp(left));
            near.truncate(10);
            near
        };
        let found = candidates(&view, plan, &wanted, self.moment, &stop);
        let takes =
            |slot: &u64| namespace.is_none_or(|name| (self.naming)(*slot, &self.values[slot]) == name);
        assert!(found.iter().all(takes));
        (nearest(&mut found.into_iter()), nearest(&mut self.values.keys().copied().filter(takes)), used)
    }

    /// Whether a vector is found by its own values.
    fn finds(&self, slot: u64) -> bool {
        let wanted = Wanted { values: self.values[&slot].clone(), top_k: 10, namespace: None, filter: None };
        let (view, stop) = (self.memory.view(), AtomicBool::new(false));
        candidates(&view, &self.memory.plan, &wanted, self.moment, &stop).contains(&slot)
    }

    /// The share of the ten nearest that queries find, and how many of these used the graph.
    fn recall(&self, queries: &[Vec<f32>], namespace: Option<&str>) -> (f64, usize) {
        let (mut all, mut hits, mut graphs) = (0, 0, 0);
        for query in queries {
            let (found, nearest, used) = self.answer(query, namespace);
            assert_eq!(found.len(), nearest.len());
            let farthest = nearest.last().copied().unwrap_or_default();
            all += nearest.len();
            hits += found.iter().filter(|found| **found >= farthest).count();
            graphs += usize::from(used);
        }
        (f64::from(hits as u32) / f64::from(all as u32), graphs)
    }
}

fn queries(random: &mut Random) -> Vec<Vec<f32>> {
    (0..40).map(|_| random.clustered()).collect()
}

/// By chance: so many of a hundred.
fn parts(slot: u64, _: &[f32]) -> &'static str {
    match scatter(slot) % 100 {
        0..50 => "50",
        50..70 => "20",
        70..85 => "15",
        85..88 => "3",
        _ => "12",
    }
}

#[test]
fn the_graph_finds_nearly_all_of_the_nearest_by_every_metric() {
    for metric in METRICS {
        let mut random = Random(metric as u64 + 1);
        let mut world = World::new(metric, DIMENSIONS, parts);
        world.commit((0..2_500).map(|_| random.clustered()), &[]);
        assert!(world.memory.view().graph_vectors() > 2_000);
        let (recall, graphs) = world.recall(&queries(&mut random), None);
        println!("{metric:?} {recall}");
        assert!(recall >= 0.95 && graphs == 40, "{metric:?}: {recall} {graphs}");
    }
}

#[test]
fn filters_find_what_they_take_by_a_walk_or_a_scan() {
    let mut random = Random(5);
    let mut world = World::new(Metric::Cosine, DIMENSIONS, parts);
    world.commit((0..2_500).map(|_| random.clustered()), &[]);
    let queries = queries(&mut random);
    for (namespace, walks) in [("50", true), ("20", true), ("15", true), ("3", false), ("none", false)] {
        let (recall, graphs) = world.recall(&queries, Some(namespace));
        println!("{namespace} {recall} {graphs}");
        assert!(recall >= 0.95 || namespace == "none", "{namespace}: {recall}");
        assert_eq!(graphs > 20, walks, "{namespace}: {graphs}");
    }
    // What is asked for lies far from what the filter takes.
    let side = |_: u64, values: &[f32]| if values[0] > 0.0 { "right" } else { "left" };
    let mut world = World::new(Metric::Cosine, DIMENSIONS, side);
    world.commit((0..2_500).map(|_| random.clustered()), &[]);
    for namespace in ["left", "right"] {
        let (recall, graphs) = world.recall(&queries, Some(namespace));
        println!("{namespace} {recall} {graphs}");
        assert!(recall >= 0.95 && graphs > 0, "{namespace}: {recall} {graphs}");
    }
}

/// In each round a third of the vectors is replaced: no more are found than in a new graph, and no fewer.
#[test]
fn churn_costs_neither_recall_nor_memory() {
    let mut random = Random(6);
    let mut world = World::new(Metric::Cosine, DIMENSIONS, parts);
    world.commit((0..1_600).map(|_| random.clustered()), &[]);
    let queries = queries(&mut random);
    let bytes = world.memory.bytes();
    for round in 0..6 {
        for _ in 0..3 {
            let living: Vec<u64> = world.values.keys().copied().collect();
            let removed: Vec<u64> = (0..200).map(|_| living[random.next(living.len())]).collect();
            let before = world.values.len();
            world.commit([], &removed);
            let lost = before - world.values.len();
            world.commit((0..lost).map(|_| random.clustered()), &[]);
        }
        let (recall, graphs) = world.recall(&queries, None);
        println!("{round} {recall} {graphs} {}", world.memory.bytes());
        assert!(recall >= 0.95 && graphs == 40, "{round}: {recall} {graphs}");
        assert!(world.memory.bytes() < bytes * 3 / 2, "{round}");
    }
    // Hardly anything is left.
    let removed: Vec<u64> = world.values.keys().copied().skip(200).collect();
    world.commit([], &removed);
    assert!(world.memory.view().graph.is_none());
    world.commit([random.clustered()], &[]);
    assert!(world.memory.bytes() < bytes / 4);
    assert_eq!(world.recall(&queries, None), (1.0, 0));
}

#[test]
fn vectors_that_are_alike_or_empty_or_of_one_dimension_do_not_break_it() {
    let kinds: [(&str, usize, Making); 5] = [
        ("all equal", 32, |_| vec![0.5; 32]),
        ("forty kinds", 32, |random| Random(random.next(40) as u64).clustered()),
        ("half of them zero", 32, |random| match random.next(2) {
            0 => vec![0.0; 32],
            _ => random.clustered(),
        }),
        ("one dimension", 1, |random| vec![random.value()]),
        ("one dimension, few values", 1, |random| vec![random.next(5) as f32 - 2.0]),
    ];
    for (kind, dimensions, make) in kinds {
        for metric in METRICS {
            let mut random = Random(8);
            let mut world = World::new(metric, dimensions, parts);
            world.commit((0..800).map(|_| make(&mut random)), &[]);
            let queries: Vec<Vec<f32>> = (0..10).map(|_| make(&mut random)).collect();
            let (recall, graphs) = world.recall(&queries, None);
            println!("{kind}, {metric:?}: {recall} {graphs}");
            assert!(recall >= 0.95, "{kind}, {metric:?}: {recall}");
        }
    }
}

/// It is the nearest to all others: by dot product since they lie on its side.
#[test]
fn one_vector_that_is_near_to_all_leaves_the_others_their_links() {
    for (metric, length) in [(Metric::DotProduct, 100.0), (Metric::Euclidean, 0.0)] {
        let mut random = Random(11);
        let mut world = World::new(metric, SPREAD, parts);
        let first = random.spread(length);
        let side: Vec<f32> = first.iter().map(|part| part / 200.0).collect();
        let mut other =
            || -> Vec<f32> { random.spread(1.0).iter().zip(&side).map(|(part, side)| part + side).collect() };
        let queries: Vec<Vec<f32>> = (0..40).map(|_| other()).collect();
        let others: Vec<Vec<f32>> = (0..3_000).map(|_| other()).collect();
        world.commit([first].into_iter().chain(others), &[]);
        let (recall, graphs) = world.recall(&queries, None);
        let lost: Vec<u64> = (0..3_001).step_by(3).filter(|slot| !world.finds(*slot)).collect();
        println!("{metric:?} {recall} {graphs} {lost:?}");
        assert!(recall >= 0.95 && graphs == 40, "{metric:?}: {recall} {graphs}");
        // As in any such graph, nobody may be left that links to one of thousands.
        assert!(lost.len() <= 1, "{metric:?}: {lost:?}");
    }
}

/// Every other vector is zero, which is the nearest to all others.
#[test]
fn many_copies_take_no_place_from_what_lies_around_them() {
    let mut random = Random(12);
    let mut world = World::new(Metric::Euclidean, SPREAD, parts);
    let values: Vec<Vec<f32>> =
        (0..5_000).map(|number| random.spread(if number % 2 == 0 { 0.0 } else { 1.0 })).collect();
    world.commit(values, &[]);
    let mut queries: Vec<Vec<f32>> = (0..10).map(|_| random.spread(1.0)).collect();
    queries.push(vec![0.0; SPREAD]);
    for namespace in [None, Some("50")] {
        let (recall, graphs) = world.recall(&queries, namespace);
        println!("{namespace:?} {recall} {graphs}");
        assert!(recall >= 0.95 && graphs > 8, "{namespace:?}: {recall} {graphs}");
    }
    let lost: Vec<u64> = (1..5_000).step_by(20).filter(|slot| !world.finds(*slot)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn nothing_is_built_for_a_closed_store() {
    let mut random = Random(13);
    let mut world = World::new(Metric::Cosine, DIMENSIONS, parts);
    world.memory.plan.builder.close();
    world.commit((0..1_000).map(|_| random.clustered()), &[]);
    assert!(world.memory.view().graph.is_none());
    let memory = Arc::new(world.memory);
    Builder::visit(&memory);
    assert_eq!(Arc::weak_count(&memory), 0);
}

/// Every list leads to nodes of its level, and nearly all nodes can be reached.
#[test]
fn links_lead_to_nodes_and_nodes_are_led_to() {
    let mut random = Random(9);
    let mut world = World::new(Metric::Euclidean, DIMENSIONS, parts);
    world.commit((0..1_600).map(|_| random.clustered()), &[]);
    let view = world.memory.view();
    let graph = view.graph.as_ref().unwrap();
    let nodes = Nodes { blocks: &view.blocks[..graph.frozen], space: world.memory.plan.space };
    let all: Vec<Node> = (0..graph.frozen)
        .flat_map(|block| {
            (0..view.blocks[block].len()).map(move |position| Node::new(block, position).unwrap())
        })
        .collect();
    for node in &all {
        for level in 0..=nodes.links(*node).unwrap().level(node.position()) {
            for neighbour in nodes.neighbours(*node, level) {
                assert_ne!(neighbour, *node);
                assert!(nodes.links(neighbour).unwrap().level(neighbour.position()) >= level);
            }
        }
    }
    let (mut reached, mut next) =
        (BTreeSet::from([graph.entry.unwrap().node]), vec![graph.entry.unwrap().node]);
    while let Some(node) = next.pop() {
        next.extend(nodes.neighbours(node, 0).filter(|neighbour| reached.insert(*neighbour)));
    }
    assert!(reached.len() * 1_000 >= all.len() * 999, "{} of {}", reached.len(), all.len());
}
