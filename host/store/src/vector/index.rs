//! The functions of a named index.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    PreparedVectors, Target, Vector, VectorError, VectorInfo, VectorMatch, VectorOptions, VectorQuery,
    VectorReport, blocking,
    change::{Decided, Decision, Prepared, Step, VectorChange},
    check,
    code::Code,
    filter::Filter,
    limits::{GET_IDS, ID_BYTES, LIST_ITEMS, METADATA_BYTES, NAMESPACE_BYTES, TOP_K},
    memory::Memory,
    metadata::{self, Property},
    open::{Shared, look},
    recall::Sample,
    rows::{IDS, RECORDS, Record, State, Values, record},
    search::{Answer, Wanted, candidates, nearest},
};
use crate::{
    commit::{Change, gone},
    core::{Core, Open, unavailable},
    names::Kind,
};

/// A query whose recall is to be sampled, and which sample it is.
type Due = (u64, Sample);

/// A named index. A clone is the same index. Its functions need a tokio runtime; searching and whatever needs the disk
/// go to a blocking thread. The first call of any reads the vectors into memory.
#[derive(Clone, Debug)]
pub struct Index {
    shared: Arc<Shared>,
    core: Arc<Core>,
    /// Keeps the committer running.
    _open: Arc<Open>,
}

impl Index {
    pub(crate) fn open(open: Arc<Open>, name: &str, options: VectorOptions) -> Result<Self, VectorError> {
        let core = Arc::clone(&open.core);
        core.health.check()?;
        options.check()?;
        let number = core.names.number(Kind::Vector, name).map_err(VectorError::Invalid)?;
        let shared = core.indexes.open(&core, number, options)?;
        Ok(Self { shared, core, _open: open })
    }

    /// What it takes.
    pub fn options(&self) -> &VectorOptions {
        &self.shared.options
    }

    /// Reads its vectors into memory, unless they are there. The first call of any other function does it too.
    pub async fn load(&self) -> Result<(), VectorError> {
        self.memory().await.map(|_| ())
    }

    /// Writes vectors, all of them or none; one whose id is there already replaces it whole. They are found, and on disk,
    /// when this returns.
    pub async fn upsert(&self, vectors: Vec<Vector>) -> Result<(), VectorError> {
        self.put(vectors, false).await
    }

    /// Writes vectors whose ids are not there yet; if one is, none is written.
    pub async fn insert(&self, vectors: Vec<Vector>) -> Result<(), VectorError> {
        self.put(vectors, true).await
    }

    async fn put(&self, vectors: Vec<Vector>, only_new: bool) -> Result<(), VectorError> {
        let most = self.shared.options.vectors;
        let (change, decided) = self.prepare_put(vectors, only_new, most).await?;
        self.submit(change, &decided).await.map(|_| ())
    }

    /// Removes vectors, all of them or none; absent ones are no error. Returns how many there were.
    pub async fn delete_by_ids(&self, ids: &[String]) -> Result<usize, VectorError> {
        let (change, decided) = self.prepare_removal(ids).await?;
        self.submit(change, &decided).await
    }

    /// Vectors by their ids, in the order asked; absent ones are left out.
    pub async fn get_by_ids(&self, ids: &[String]) -> Result<Vec<Vector>, VectorError> {
        check_ids(ids, GET_IDS)?;
        let (this, ids) = (self.clone(), ids.to_vec());
        blocking(move || {
            let transaction = this.core.begin_read()?;
            let work = || {
                let table = transaction.open_table(IDS)?;
                let records = transaction.open_table(RECORDS)?;
                let values = this.values(&transaction)?;
                let mut found = Vec::new();
                for id in &ids {
                    let Some(slot) = table.get((this.shared.number, id.as_str()))? else { continue };
                    let slot = slot.value();
                    let Record { id, namespace, metadata } = record(&records, this.shared.number, slot)?;
                    found.push(Vector { id, values: values.read(slot)?, namespace, metadata });
                }
                Ok::<_, redb::Error>(found)
            };
            Ok(work().map_err(unavailable)?)
        })
        .await
    }

    /// The vectors that are nearest, nearest first. It sees every change that was acknowledged before it was asked.
    pub async fn query(&self, query: VectorQuery) -> Result<Vec<VectorMatch>, VectorError> {
        let filter = self.check_query(&query)?;
        let memory = Arc::clone(self.memory().await?);
        let searches = Arc::clone(&self.core.indexes.searches);
        let permit = searches.acquire_owned().await.map_err(|_| gone())?;
        let stop = StopOnDrop::default();
        let (this, stopped) = (self.clone(), Arc::clone(&stop.0));
        blocking(move || {
            let (matches, sample) = this.search(query, filter, &memory, &stopped)?;
            if let Some((number, sample)) = sample {
                // After the answer, and within the bound of searches.
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    if let Err(error) = this.shared.recall.take(number, &sample) {
                        tracing::warn!(%error, "cannot sample the recall of an index");
                    }
                });
            }
            Ok(matches)
        })
        .await
    }

    fn search(
        &self,
        query: VectorQuery,
        filter: Option<Filter>,
        memory: &Memory,
        stop: &AtomicBool,
    ) -> Result<(Vec<VectorMatch>, Option<Due>), VectorError> {
        let Some((transaction, state, view)) = look(&self.core, &self.shared, memory)? else {
            return match query.target {
                Target::Id(id) => Err(VectorError::Absent(id)),
                Target::Values(_) => Ok((Vec::new(), None)),
            };
        };
        let values = self.values(&transaction).map_err(unavailable)?;
        let target = match query.target {
            Target::Values(values) => values,
            Target::Id(id) => {
                let ids = transaction.open_table(IDS).map_err(unavailable)?;
                let slot = ids.get((self.shared.number, id.as_str())).map_err(unavailable)?;
                let Some(slot) = slot else { return Err(VectorError::Absent(id)) };
                values.read(slot.value()).map_err(unavailable)?
            }
        };
        let wanted = Wanted { values: target, top_k: query.top_k, namespace: query.namespace, filter };
        let State { metric, moment, .. } = state;
        let slots = candidates(&view, &memory.plan, &wanted, moment, stop);
        let near = nearest(&values, &wanted, metric, slots).map_err(unavailable)?;
        let answer = Answer {
            index: self.shared.number,
            metric,
            values: query.return_values,
            metadata: query.return_metadata,
            indexed: &self.shared.indexed,
        };
        let matches = answer.matches(&transaction, &values, &near).map_err(unavailable)?;
        // A search that was ended early says nothing about what the others find.
        let due = if stop.load(Ordering::Relaxed) { None } else { self.shared.recall.query() };
        let sample =
            due.map(|number| (number, Sample { view, moment, values, metric, wanted, answered: near }));
        Ok((matches, sample))
    }

    /// What is in it.
    pub async fn describe(&self) -> Result<VectorInfo, VectorError> {
        let (memory, vectors) = (Arc::clone(self.memory().await?), self.count().await?);
        let this = self.clone();
        blocking(move || {
            let VectorOptions { dimensions, metric, .. } = this.shared.options;
            Ok(VectorInfo {
                dimensions,
                metric,
                vectors,
                value_bytes: vectors * (dimensions * size_of::<f32>()) as u64,
                memory_bytes: memory.bytes() as u64,
                graph_vectors: memory.view().graph_vectors() as u64,
                recall: this.shared.recall.share(),
            })
        })
        .await
    }

    /// Reads everything and compares, memory with the file too. Takes time; it sees one instant, and whatever it sees keeps
    /// its pages until the end.
    pub async fn check(&self) -> Result<VectorReport, VectorError> {
        self.memory().await?;
        let this = self.clone();
        blocking(move || Ok(check::whole(&this.core, &this.shared, &AtomicBool::new(false))?)).await
    }

    /// Prepares to write vectors as part of a joint commit. There, the number of vectors is bounded by what the index has
    /// now, so that writers at the same time may bring it past the bound by what they bring.
    pub async fn prepare_upsert(&self, vectors: Vec<Vector>) -> Result<PreparedVectors, VectorError> {
        let most = self.shared.options.vectors;
        if self.count().await? + vectors.len() as u64 > most {
            return Err(full(most));
        }
        let (change, _) = self.prepare_put(vectors, false, u64::MAX).await?;
        Ok(PreparedVectors { index: self.clone(), change })
    }

    /// Prepares to remove vectors as part of a joint commit.
    pub async fn prepare_delete(&self, ids: &[String]) -> Result<PreparedVectors, VectorError> {
        let (change, _) = self.prepare_removal(ids).await?;
        Ok(PreparedVectors { index: self.clone(), change })
    }

    async fn count(&self) -> Result<u64, VectorError> {
        let this = self.clone();
        blocking(move || {
            let transaction = this.core.begin_read()?;
            let state = this.shared.state(&transaction).map_err(unavailable)?;
            Ok(state.map_or(0, |state| state.vectors))
        })
        .await
    }

    /// Whether this is an index of that heart.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    async fn memory(&self) -> Result<&Arc<Memory>, VectorError> {
        self.shared.memory(&self.core).await
    }

    fn values(&self, transaction: &redb::ReadTransaction) -> Result<Values, redb::Error> {
        Values::open(transaction, self.shared.number, self.shared.options.dimensions)
    }

    async fn prepare_put(
        &self,
        vectors: Vec<Vector>,
        only_new: bool,
        most: u64,
    ) -> Result<(VectorChange, Decided), VectorError> {
        if vectors.len() > LIST_ITEMS {
            return Err(too_long("a list", LIST_ITEMS, "vectors"));
        }
        let mut ids = BTreeSet::new();
        if let Some(twice) = vectors.iter().find(|vector| !ids.insert(vector.id.as_str())) {
            return Err(VectorError::Invalid(format!("id {:?} stands twice in the list", twice.id)));
        }
        let memory = Arc::clone(self.memory().await?);
        let shared = Arc::clone(&self.shared);
        let vectors = blocking(move || {
            vectors.into_iter().map(|vector| vector.prepare(&shared)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let decided = Decided::new(OnceLock::new());
        let step = Step::Put { vectors, only_new, most, decided: Arc::clone(&decided) };
        Ok((VectorChange { shared: Arc::clone(&self.shared), memory, step }, decided))
    }

    async fn prepare_removal(&self, ids: &[String]) -> Result<(VectorChange, Decided), VectorError> {
        check_ids(ids, LIST_ITEMS)?;
        let memory = Arc::clone(self.memory().await?);
        let decided = Decided::new(OnceLock::new());
        let step = Step::Remove { ids: ids.to_vec(), decided: Arc::clone(&decided) };
        Ok((VectorChange { shared: Arc::clone(&self.shared), memory, step }, decided))
    }

    async fn submit(&self, change: VectorChange, decided: &Decided) -> Result<usize, VectorError> {
        self.core.submit(vec![Change::Vector(change)]).await?;
        match decided.get() {
            Some(Decision::Done(vectors)) => Ok(*vectors),
            Some(Decision::Present(id)) => Err(VectorError::Conflict(id.clone())),
            Some(Decision::Full) => Err(full(self.shared.options.vectors)),
            None => Err(gone().into()),
        }
    }

    fn check_query(&self, query: &VectorQuery) -> Result<Option<Filter>, VectorError> {
        match &query.target {
            Target::Values(values) => check_values("the query", values, self.shared.options.dimensions)?,
            Target::Id(id) => check_id(id)?,
        }
        if !(1..=TOP_K).contains(&query.top_k) {
            return Err(VectorError::Invalid(format!("top-k is 1 to {TOP_K}")));
        }
        check_namespace(query.namespace.as_deref())?;
        let parse = |filter: &String| Filter::parse(filter, &self.shared.indexed);
        query.filter.as_ref().map(parse).transpose().map_err(VectorError::Invalid)
    }
}

impl Vector {
    fn prepare(self, shared: &Shared) -> Result<Prepared, VectorError> {
        let Self { id, values, namespace, metadata } = self;
        check_id(&id)?;
        check_namespace(namespace.as_deref())?;
        check_values(&format!("vector {id:?}"), &values, shared.options.dimensions)?;
        if metadata.as_ref().is_some_and(|text| text.len() > METADATA_BYTES) {
            return Err(too_long(&format!("the metadata of vector {id:?}"), METADATA_BYTES, "bytes"));
        }
        let wrong = |error| VectorError::Invalid(format!("the metadata of vector {id:?}: {error}"));
        let object = metadata.as_deref().map(metadata::parse).transpose().map_err(wrong)?;
        Ok(Prepared {
            code: Code::of(&values),
            values,
            cells: Property::cells(&shared.indexed, object.as_ref()),
            namespace: namespace.as_deref().map(Into::into),
            record: Record { id, namespace, metadata },
        })
    }
}

/// Ends a search that nobody waits for any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn check_values(whose: &str, values: &[f32], dimensions: usize) -> Result<(), VectorError> {
    if values.len() != dimensions {
        let text = format!("{whose} has {} values, and the index {dimensions} dimensions", values.len());
        return Err(VectorError::Invalid(text));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(VectorError::Invalid(format!("value {place} of {whose} is not a finite number"))),
        None => Ok(()),
    }
}

fn check_ids(ids: &[String], most: usize) -> Result<(), VectorError> {
    if ids.len() > most {
        return Err(too_long("a list", most, "ids"));
    }
    ids.iter().try_for_each(|id| check_id(id))
}

fn check_id(id: &str) -> Result<(), VectorError> {
    match id.len() {
        0 => Err(VectorError::Invalid("an id must not be empty".to_owned())),
        1..=ID_BYTES => Ok(()),
        _ => Err(too_long("an id", ID_BYTES, "bytes")),
    }
}

fn check_namespace(namespace: Option<&str>) -> Result<(), VectorError> {
    match namespace.map_or(1, str::len) {
        0 => Err(VectorError::Invalid("a namespace must not be empty; leave it out instead".to_owned())),
        1..=NAMESPACE_BYTES => Ok(()),
        _ => Err(too_long("a namespace", NAMESPACE_BYTES, "bytes")),
    }
}

fn too_long(what: &str, most: usize, unit: &str) -> VectorError {
    VectorError::TooLarge(format!("{what} has at most {most} {unit}"))
}

fn full(most: u64) -> VectorError {
    VectorError::TooLarge(format!("the index has at most {most} vectors"))
}
