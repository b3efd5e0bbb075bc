//! The value of a ledger, read and changed where it stands: an admission touches a few of its thousand bytes, and taking
//! all of it apart and together again was most of what quota computed.
//!
//! Version 1, little-endian: version u8, now u64, counter u64, count of seconds u16, of quarters u16, of leases u16; then
//! the seconds (index u32, requests u32, tokens u64), the quarters (index u32, requests u32) and the leases (id u64,
//! tokens u64, second u32, expires u32, daily u8).
//!
//! Version 2 is that of a subject that has, or had, a budget. The count of shares u16 follows the other counts, and behind
//! it all stand the shares of the leases (lease u64, cost u64), then what was spent (day u32, tokens u64, cost u64; month
//! u32, tokens u64, cost u64; in total tokens u64, cost u64; whether a total is limited u8). Everybody else's value is of
//! version 1, so that the version of this plugin before budgets can take over again.

use std::ops::Range;

use crate::budget::Spent;
use crate::limits::{LEASES, QUARTERS, SECONDS};

/// Of a value without budgets, and of one with them.
const VERSIONS: [u8; 2] = [1, 2];
const HEAD_BYTES: usize = 1 + 8 + 8 + 2 + 2 + 2;
/// Of version 2: the count of shares too.
const BUDGET_HEAD_BYTES: usize = HEAD_BYTES + 2;
/// Where the counts of the lists stand.
const COUNTS: [usize; 4] = [17, 19, 21, HEAD_BYTES];

/// Charges of one second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Second {
    /// Seconds since 1970.
    pub(crate) index: u32,
    pub(crate) requests: u32,
    pub(crate) tokens: u64,
}

/// Charges of a quarter of an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quarter {
    /// Quarters of an hour since 1970.
    pub(crate) index: u32,
    pub(crate) requests: u32,
}

/// A request that was charged by its estimate and is not settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    /// Estimated tokens.
    pub(crate) tokens: u64,
    /// The second that was charged.
    pub(crate) second: u32,
    /// The second from which on the lease is forgotten.
    pub(crate) expires: u32,
    /// Whether the day was charged too.
    pub(crate) daily: bool,
}

/// What a lease has charged to the budgets, beside its tokens; a lease without one has charged nothing there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// The lease.
    pub(crate) lease: u64,
    /// Estimated cost, in billionths.
    pub(crate) cost: u64,
}

/// What stands in one of the value's four lists.
pub(crate) trait Record: Copy {
    /// Which list: 0 to 3.
    const LIST: usize;
    /// Bytes of a record.
    const BYTES: usize;
    /// How many there may be.
    const MOST: usize;
    /// From `BYTES` bytes.
    fn read(bytes: &[u8]) -> Self;
    /// Into `BYTES` bytes.
    fn write(self, bytes: &mut [u8]);
}

impl Record for Second {
    const LIST: usize = 0;
    const BYTES: usize = 4 + 4 + 8;
    const MOST: usize = SECONDS as usize;

    fn read(bytes: &[u8]) -> Self {
        Second { index: u32_at(bytes, 0), requests: u32_at(bytes, 4), tokens: u64_at(bytes, 8) }
    }

    fn write(self, bytes: &mut [u8]) {
        put(bytes, 0, self.index.to_le_bytes());
        put(bytes, 4, self.requests.to_le_bytes());
        put(bytes, 8, self.tokens.to_le_bytes());
    }
}

impl Record for Quarter {
    const LIST: usize = 1;
    const BYTES: usize = 4 + 4;
    const MOST: usize = QUARTERS as usize;

    fn read(bytes: &[u8]) -> Self {
        Quarter { index: u32_at(bytes, 0), requests: u32_at(bytes, 4) }
    }

    fn write(self, bytes: &mut [u8]) {
        put(bytes, 0, self.index.to_le_bytes());
        put(bytes, 4, self.requests.to_le_bytes());
    }
}

impl Record for Lease {
    const LIST: usize = 2;
    const BYTES: usize = 8 + 8 + 4 + 4 + 1;
    const MOST: usize = LEASES;

    fn read(bytes: &[u8]) -> Self {
        Lease {
            id: u64_at(bytes, 0),
            tokens: u64_at(bytes, 8),
            second: u32_at(bytes, 16),
            expires: u32_at(bytes, 20),
            daily: bytes.get(24).is_some_and(|daily| *daily != 0),
        }
    }

    fn write(self, bytes: &mut [u8]) {
        put(bytes, 0, self.id.to_le_bytes());
        put(bytes, 8, self.tokens.to_le_bytes());
        put(bytes, 16, self.second.to_le_bytes());
        put(bytes, 20, self.expires.to_le_bytes());
        put(bytes, 24, [u8::from(self.daily)]);
    }
}

impl Record for Share {
    const LIST: usize = 3;
    const BYTES: usize = 8 + 8;
    const MOST: usize = LEASES;

    fn read(bytes: &[u8]) -> Self {
        Share { lease: u64_at(bytes, 0), cost: u64_at(bytes, 8) }
    }

    fn write(self, bytes: &mut [u8]) {
        put(bytes, 0, self.lease.to_le_bytes());
        put(bytes, 8, self.cost.to_le_bytes());
    }
}

/// A record of what was charged in some time.
pub(crate) trait Bucket: Record {
    /// Which time, by its number since 1970.
    fn index(&self) -> u32;
    /// The same charges at another time.
    fn moved_to(self, index: u32) -> Self;
    /// With another's charges added.
    fn plus(self, other: Self) -> Self;
    /// With another's charges given back.
    fn minus(self, other: Self) -> Self;
    /// Whether nothing is charged.
    fn is_empty(&self) -> bool;
}

impl Bucket for Second {
    fn index(&self) -> u32 {
        self.index
    }

    fn moved_to(self, index: u32) -> Self {
        Second { index, ..self }
    }

    fn plus(self, other: Self) -> Self {
        let requests = self.requests.saturating_add(other.requests);
        Second { requests, tokens: self.tokens.saturating_add(other.tokens), ..self }
    }

    fn minus(self, other: Self) -> Self {
        let requests = self.requests.saturating_sub(other.requests);
        Second { requests, tokens: self.tokens.saturating_sub(other.tokens), ..self }
    }

    fn is_empty(&self) -> bool {
        self.requests == 0 && self.tokens == 0
    }
}

impl Bucket for Quarter {
    fn index(&self) -> u32 {
        self.index
    }

    fn moved_to(self, index: u32) -> Self {
        Quarter { index, ..self }
    }

    fn plus(self, other: Self) -> Self {
        Quarter { requests: self.requests.saturating_add(other.requests), ..self }
    }

    fn minus(self, other: Self) -> Self {
        Quarter { requests: self.requests.saturating_sub(other.requests), ..self }
    }

    fn is_empty(&self) -> bool {
        self.requests == 0
    }
}

/// A value whose lengths were found to agree with its bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Value {
    bytes: Vec<u8>,
    /// Records in each list.
    counts: [usize; 4],
}

impl Value {
    /// An absent value is an empty one. What breaks the format is an error; that the lists are in order is taken for
    /// granted, since whoever could write them otherwise could as well write other charges.
    pub(crate) fn open(bytes: Option<Vec<u8>>) -> Result<Value, String> {
        let Some(bytes) = bytes else {
            let mut bytes = vec![0; HEAD_BYTES];
            put(&mut bytes, 0, [VERSIONS[0]]);
            return Ok(Value { bytes, counts: [0; 4] });
        };
        let mut counts = COUNTS.map(|place| usize::from(u16::from_le_bytes(array_at(&bytes, place))));
        let has_budget = bytes.first() == Some(&VERSIONS[1]);
        if !has_budget {
            counts[3] = 0;
        }
        let [seconds, quarters, leases, shares] = counts;
        let known = bytes.first().is_some_and(|version| VERSIONS.contains(version));
        let bounded = seconds <= Second::MOST && quarters <= Quarter::MOST && leases <= Lease::MOST;
        let value = Value { bytes, counts };
        let size = value.start_of(4) + if has_budget { Spent::BYTES } else { 0 };
        if !known || value.bytes.len() != size || !bounded || shares > Share::MOST {
            return Err("quota value is corrupt".to_owned());
        }
        Ok(value)
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        let lists = if self.has_budget() { 4 } else { 3 };
        for (count, place) in self.counts.into_iter().zip(COUNTS).take(lists) {
            put(&mut self.bytes, place, (count as u16).to_le_bytes());
        }
        self.bytes
    }

    fn has_budget(&self) -> bool {
        self.bytes.first() == Some(&VERSIONS[1])
    }

    /// What was spent; none: the subject never had a budget.
    pub(crate) fn spent(&self) -> Option<Spent> {
        let start = self.start_of(4);
        self.has_budget().then(|| Spent::read(self.bytes.get(start..).unwrap_or_default()))
    }

    pub(crate) fn set_spent(&mut self, spent: Spent) {
        if !self.has_budget() {
            put(&mut self.bytes, 0, [VERSIONS[1]]);
            let head = HEAD_BYTES.min(self.bytes.len());
            self.bytes.splice(head..head, [0; BUDGET_HEAD_BYTES - HEAD_BYTES]);
            self.bytes.resize(self.bytes.len() + Spent::BYTES, 0);
        }
        let start = self.start_of(4);
        spent.write(self.bytes.get_mut(start..).unwrap_or_default());
    }

    /// The latest time seen, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        u64_at(&self.bytes, 1)
    }

    pub(crate) fn set_now_ms(&mut self, now_ms: u64) {
        put(&mut self.bytes, 1, now_ms.to_le_bytes());
    }

    /// Leases given out so far, this one included.
    pub(crate) fn count_lease(&mut self) -> u64 {
        let counter = u64_at(&self.bytes, 9).wrapping_add(1);
        put(&mut self.bytes, 9, counter.to_le_bytes());
        counter
    }

    /// How many records a list has.
    pub(crate) fn len<R: Record>(&self) -> usize {
        self.counts.get(R::LIST).copied().unwrap_or_default()
    }

    /// The records of a list.
    pub(crate) fn all<R: Record>(&self) -> impl DoubleEndedIterator<Item = R> {
        let list = self.bytes.get(self.span::<R>(0..self.len::<R>())).unwrap_or_default();
        list.chunks_exact(R::BYTES).map(R::read)
    }

    /// Puts a record in another's place.
    pub(crate) fn set<R: Record>(&mut self, place: usize, record: R) {
        let span = self.span::<R>(place..place + 1);
        if let Some(bytes) = self.bytes.get_mut(span) {
            record.write(bytes);
        }
    }

    /// Adds a record at the end of a list.
    pub(crate) fn push<R: Record>(&mut self, record: R) {
        let place = self.len::<R>();
        let Range { start, end } = self.span::<R>(place..place + 1);
        let length = self.bytes.len();
        self.bytes.resize(length + R::BYTES, 0);
        self.bytes.copy_within(start..length, end);
        self.recount::<R>(place + 1);
        self.set(place, record);
    }

    /// Takes the records at some places out of a list.
    pub(crate) fn remove<R: Record>(&mut self, places: Range<usize>) {
        if !places.is_empty() {
            self.recount::<R>(self.len::<R>() - places.len());
            let span = self.span::<R>(places);
            self.bytes.drain(span);
        }
    }

    /// Puts other records in the place of a whole list.
    pub(crate) fn replace<R: Record>(&mut self, records: &[R]) {
        self.remove::<R>(0..self.len::<R>());
        for record in records {
            self.push(*record);
        }
    }

    fn recount<R: Record>(&mut self, count: usize) {
        if let Some(of_list) = self.counts.get_mut(R::LIST) {
            *of_list = count;
        }
    }

    /// Where records of a list stand in the bytes.
    fn span<R: Record>(&self, places: Range<usize>) -> Range<usize> {
        let start = self.start_of(R::LIST);
        start + places.start * R::BYTES..start + places.end * R::BYTES
    }

    /// Where a list starts; that of the list behind the last is where the lists end.
    fn start_of(&self, list: usize) -> usize {
        let head = if self.has_budget() { BUDGET_HEAD_BYTES } else { HEAD_BYTES };
        let sizes = [Second::BYTES, Quarter::BYTES, Lease::BYTES, Share::BYTES];
        head + self.counts.iter().zip(sizes).take(list).map(|(count, size)| count * size).sum::<usize>()
    }
}

pub(crate) fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, place))
}

pub(crate) fn u64_at(bytes: &[u8], place: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, place))
}

/// Zeros beyond the end.
fn array_at<const N: usize>(bytes: &[u8], place: usize) -> [u8; N] {
    bytes.get(place..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], place: usize, part: [u8; N]) {
    if let Some(there) = bytes.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
        *there = part;
    }
}
