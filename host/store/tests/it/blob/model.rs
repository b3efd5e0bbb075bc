//! Random operations against a plain map.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, test_runner::TestCaseResult};
use tollgate_store::{
    BlobError, BlobList, ByteRange, Container, Etags, GetOptions, Got, Precondition, PutOptions, Reader,
    Store, Unmet, Upload,
};

use super::{
    files::has_files,
    support::{CHUNK, bytes, collected, container, in_files, noise, report, text},
};
use crate::support::Place;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        content: Content,
        condition: Condition,
    },
    /// Begins an upload that stays open; a later one takes its place, and it is dropped.
    Begin {
        content: Content,
    },
    Get {
        key: u8,
        from: u8,
        length: Option<u8>,
        condition: Condition,
    },
    /// Opens an object and reads a little, then what the slow reader before has left.
    ReadSlowly(u8),
    Delete {
        key: u8,
        condition: Condition,
    },
    DeleteMany(Vec<u8>),
    List {
        prefix: u8,
        delimited: bool,
        limit: usize,
    },
    Check,
    Reopen,
}

/// Pieces of a few kinds, so that chunks are shared, and how much of the last there is.
#[derive(Clone, Debug)]
struct Content {
    pieces: Vec<u8>,
    last: u8,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    None,
    Absent,
    Present,
    Right,
    Wrong,
    NotRight,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..6;
    let content = || {
        let pieces = prop_oneof![
            6 => prop::collection::vec(0u8..5, 0..4),
            1 => prop::collection::vec(0u8..5, 33..36),
        ];
        (pieces, any::<u8>()).prop_map(|(pieces, last)| Content { pieces, last })
    };
    let condition = || {
        use Condition::*;
        prop_oneof![
            6 => Just(None), 1 => Just(Absent), 1 => Just(Present), 1 => Just(Right), 1 => Just(Wrong),
            1 => Just(NotRight),
        ]
    };
    let step = prop_oneof![
        6 => (key.clone(), content(), condition())
            .prop_map(|(key, content, condition)| Step::Put { key, content, condition }),
        1 => content().prop_map(|content| Step::Begin { content }),
        4 => (key.clone(), any::<u8>(), any::<Option<u8>>(), condition())
            .prop_map(|(key, from, length, condition)| Step::Get { key, from, length, condition }),
        2 => key.clone().prop_map(Step::ReadSlowly),
        3 => (key.clone(), condition()).prop_map(|(key, condition)| Step::Delete { key, condition }),
        1 => prop::collection::vec(key, 0..4).prop_map(Step::DeleteMany),
        2 => (0u8..3, any::<bool>(), 1usize..4)
            .prop_map(|(prefix, delimited, limit)| Step::List { prefix, delimited, limit }),
        1 => Just(Step::Check),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

fn name(key: u8) -> String {
    ["a", "a/1", "a/2", "b/x/1", "b/x/2", "c"][usize::from(key)].to_owned()
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        let piece = |seed: u8| match seed % 3 {
            0 => vec![seed; CHUNK],
            1 => text(u64::from(seed), CHUNK),
            _ => noise(u64::from(seed), CHUNK),
        };
        let mut bytes: Vec<u8> = self.pieces.iter().flat_map(|seed| piece(*seed)).collect();
        bytes.extend(noise(9, usize::from(self.last) * 100));
        bytes
    }
}

struct Checked {
    files: bool,
    place: Place,
    store: Store,
    blobs: Container,
    model: BTreeMap<String, (Vec<u8>, String)>,
    open: Option<Upload>,
    slow: Option<(Reader, Vec<u8>)>,
}

impl Checked {
    fn new(files: bool) -> Self {
        let place = Place::new();
        let store = place.open();
        let blobs = open(&store, files);
        Self { files, place, store, blobs, model: BTreeMap::new(), open: None, slow: None }
    }

    /// The precondition for a key, and which part of it the model says does not hold.
    fn condition(&self, key: &str, condition: Condition) -> (Precondition, Option<Unmet>) {
        let present = self.model.get(key).map(|(_, etag)| etag.clone());
        let none_match = |etags| Precondition { if_match: None, if_none_match: Some(etags) };
        let right = present.clone().unwrap_or_default();
        match condition {
            Condition::None => (Precondition::default(), None),
            Condition::Absent => (Precondition::absent(), present.map(|_| Unmet::NoneMatch)),
            Condition::Present => {
                let any = Precondition { if_match: Some(Etags::Any), if_none_match: None };
                (any, present.is_none().then_some(Unmet::Match))
            }
            Condition::Right => (Precondition::etag(&right), present.is_none().then_some(Unmet::Match)),
            Condition::Wrong => (Precondition::etag("wrong"), Some(Unmet::Match)),
            Condition::NotRight => (none_match(Etags::Of(vec![right])), present.map(|_| Unmet::NoneMatch)),
        }
    }

    async fn step(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Put { key, content, condition } => {
                let (key, content) = (name(key), content.bytes());
                let (precondition, unmet) = self.condition(&key, condition);
                let options = PutOptions { precondition, ..PutOptions::default() };
                match self.blobs.put(&key, &content, options).await {
                    Ok(info) => {
                        prop_assert!(unmet.is_none());
                        prop_assert_eq!(info.size, content.len() as u64);
                        self.model.insert(key, (content, info.etag));
                    }
                    Err(error) => prop_assert!(unmet.is_some() && error == BlobError::PreconditionFailed),
                }
            }
            Step::Begin { content } => {
                let mut upload = self.blobs.upload("begun", PutOptions::default()).unwrap();
                upload.write(&content.bytes()).await.unwrap();
                self.open = Some(upload);
            }
            Step::Get { key, from, length, condition } => {
                self.get(&name(key), from, length, condition).await?
            }
            Step::ReadSlowly(key) => self.read_slowly(&name(key)).await?,
            Step::Delete { key, condition } => {
                let key = name(key);
                let (precondition, unmet) = self.condition(&key, condition);
                let deleted = self.blobs.delete(&key, precondition).await;
                if unmet.is_some() {
                    prop_assert_eq!(deleted, Err(BlobError::PreconditionFailed));
                } else {
                    prop_assert_eq!(deleted, Ok(self.model.remove(&key).is_some()));
                }
            }
            Step::DeleteMany(keys) => {
                let keys: BTreeSet<String> = keys.into_iter().map(name).collect();
                let there = keys.iter().filter(|key| self.model.remove(*key).is_some()).count();
                let keys: Vec<String> = keys.into_iter().collect();
                prop_assert_eq!(self.blobs.delete_many(&keys).await, Ok(there));
            }
            Step::List { prefix, delimited, limit } => self.list(prefix, delimited, limit).await?,
            Step::Check => {
                prop_assert_eq!(report(&self.blobs).await.objects, self.model.len() as u64);
            }
            Step::Reopen => self.reopen().await,
        }
        Ok(())
    }

    async fn reopen(&mut self) {
        (self.open, self.slow) = (None, None);
        self.store.close().await.unwrap();
        self.store = self.place.open();
        self.blobs = open(&self.store, self.files);
    }

    async fn get(&mut self, key: &str, from: u8, length: Option<u8>, condition: Condition) -> TestCaseResult {
        let (precondition, unmet) = self.condition(key, condition);
        let offset = u64::from(from) * 997;
        let length = length.map(|length| u64::from(length) * 1_009);
        let range = Some(ByteRange::From { offset, length }).filter(|_| from > 0);
        let got = self.blobs.get(key, GetOptions { range, precondition, verify: true }).await;
        let content = self.model.get(key).map(|(content, _)| content);
        match (got, unmet, content) {
            (Ok(Got::Unmet(found, info)), Some(expected), content) => {
                prop_assert_eq!((found, info.is_some()), (expected, content.is_some()));
            }
            (Ok(Got::Absent), None, None) => {}
            (Ok(Got::Found(reader)), None, Some(content)) => {
                let range = reader.range();
                let found = reader.read_all().await.unwrap();
                let end =
                    length.filter(|_| from > 0).map_or(content.len(), |length| (offset + length) as usize);
                prop_assert_eq!(range.start, if from > 0 { offset } else { 0 });
                prop_assert!(found == content[range.start as usize..end.min(content.len())]);
            }
            (Err(BlobError::OutOfRange(size)), None, Some(content)) => {
                prop_assert_eq!(size, content.len() as u64);
                prop_assert!(offset >= size || length == Some(0));
            }
            (got, unmet, _) => prop_assert!(false, "{:?} {:?}", got, unmet),
        }
        Ok(())
    }

    async fn read_slowly(&mut self, key: &str) -> TestCaseResult {
        if let Some((slow, rest)) = self.slow.take() {
            prop_assert!(slow.read_all().await.unwrap() == rest);
        }
        if let Got::Found(mut slow) = self.blobs.get(key, GetOptions::default()).await.unwrap() {
            let first = slow.next().await.unwrap().unwrap_or_default();
            let content = &self.model[key].0;
            prop_assert!(content.starts_with(&first));
            self.slow = Some((slow, content[first.len()..].to_vec()));
        }
        Ok(())
    }

    async fn list(&mut self, prefix: u8, delimited: bool, limit: usize) -> TestCaseResult {
        let prefix = ["", "a/", "b"][usize::from(prefix)];
        let mut expected: Vec<String> = Vec::new();
        for key in self.model.keys().filter(|key| key.starts_with(prefix)) {
            let common = key[prefix.len()..].find('/').filter(|_| delimited);
            let shown = common.map_or(key.clone(), |at| format!("{}*", &key[..prefix.len() + at + 1]));
            if expected.last() != Some(&shown) {
                expected.push(shown);
            }
        }
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let delimiter = delimited.then(|| "/".to_owned());
            let page = self
                .blobs
                .list(BlobList { prefix: prefix.to_owned(), delimiter, cursor, limit })
                .await
                .unwrap();
            let mut shown: Vec<String> = page.prefixes.iter().map(|prefix| format!("{prefix}*")).collect();
            for object in page.objects {
                prop_assert_eq!(&object.etag, &self.model[&object.key].1);
                shown.push(object.key);
            }
            shown.sort();
            found.extend(shown);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
        Ok(())
    }

    /// At the end the container has every object, and the chunks or files of all of them, and no more.
    async fn end(&mut self) -> TestCaseResult {
        self.reopen().await;
        for (key, (content, _)) in &self.model {
            prop_assert!(bytes(&self.blobs, key).await.as_ref() == Some(content));
        }
        let chunks: BTreeSet<&[u8]> =
            self.model.values().flat_map(|(content, _)| content.chunks(CHUNK)).collect();
        let chunks = if self.files { 0 } else { chunks.len() as u64 };
        let found = collected(&self.blobs).await;
        prop_assert_eq!((found.objects, found.chunks), (self.model.len() as u64, chunks));
        if self.files {
            has_files(&self.place.blob_folder(), self.model.len()).await;
        }
        Ok(())
    }
}

fn open(store: &Store, files: bool) -> Container {
    if files { in_files(store, "model") } else { container(store, "model") }
}

fn check(files: bool, steps: Vec<Step>) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut checked = Checked::new(files);
        for step in steps {
            checked.step(step).await?;
        }
        checked.end().await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_container_is_a_map(steps in steps()) {
        check(false, steps)?;
    }

    #[test]
    fn a_container_in_files_is_a_map(steps in steps()) {
        check(true, steps)?;
    }
}
