//! The ledger as a value, and the ticket; little-endian, with a version in front.
//!
//! version 1: version u8, now u64, counter u64, count of seconds u16, of quarters u16, of leases u16; then the
//! seconds (index u32, requests u32, tokens u64), the quarters (index u32, requests u32) and the leases (id u64,
//! tokens u64, second u32, expires u32, daily u8).

use crate::ledger::{Lease, Ledger, Quarter, Second};
use crate::limits::{LEASES, QUARTERS, SECONDS};

const VERSION: u8 = 1;
const TICKET_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 8 + 2 + 2 + 2;
const SECOND_BYTES: usize = 4 + 4 + 8;
const QUARTER_BYTES: usize = 4 + 4;
const LEASE_BYTES: usize = 8 + 8 + 4 + 4 + 1;

/// Fills a ledger from a value; an absent one is empty. What breaks the format or an invariant is an error.
pub(crate) fn decode(value: Option<&[u8]>, ledger: &mut Ledger) -> Result<(), String> {
    ledger.now_ms = 0;
    ledger.counter = 0;
    ledger.seconds.clear();
    ledger.quarters.clear();
    ledger.leases.clear();
    match value {
        None => Ok(()),
        Some(value) => read(value, ledger).ok_or_else(|| "quota value is corrupt".to_owned()),
    }
}

/// The value of a ledger.
pub(crate) fn encode(ledger: &Ledger) -> Vec<u8> {
    let size = HEAD_BYTES
        + ledger.seconds.len() * SECOND_BYTES
        + ledger.quarters.len() * QUARTER_BYTES
        + ledger.leases.len() * LEASE_BYTES;
    let mut value = Vec::with_capacity(size);
    value.push(VERSION);
    value.extend(ledger.now_ms.to_le_bytes());
    value.extend(ledger.counter.to_le_bytes());
    for count in [ledger.seconds.len(), ledger.quarters.len(), ledger.leases.len()] {
        value.extend((count as u16).to_le_bytes());
    }
    value.resize(size, 0);
    let rest = value.get_mut(HEAD_BYTES..).unwrap_or_default();
    let (seconds, rest) = rest.split_at_mut(ledger.seconds.len() * SECOND_BYTES);
    let (quarters, leases) = rest.split_at_mut(ledger.quarters.len() * QUARTER_BYTES);
    // In records of a known size, each filled by one or two stores: this and the reading back are most of what an
    // admission computes.
    for (record, second) in seconds.as_chunks_mut::<SECOND_BYTES>().0.iter_mut().zip(&ledger.seconds) {
        let Second { index, requests, tokens } = *second;
        *record = (u128::from(index) | u128::from(requests) << 32 | u128::from(tokens) << 64).to_le_bytes();
    }
    for (record, quarter) in quarters.as_chunks_mut::<QUARTER_BYTES>().0.iter_mut().zip(&ledger.quarters) {
        *record = (u64::from(quarter.index) | u64::from(quarter.requests) << 32).to_le_bytes();
    }
    for (record, lease) in leases.as_chunks_mut::<LEASE_BYTES>().0.iter_mut().zip(&ledger.leases) {
        let charge = u128::from(lease.id) | u128::from(lease.tokens) << 64;
        let times = u64::from(lease.second) | u64::from(lease.expires) << 32;
        let (charge_bytes, rest) = record.split_at_mut(size_of::<u128>());
        let (times_bytes, daily) = rest.split_at_mut(size_of::<u64>());
        charge_bytes.copy_from_slice(&charge.to_le_bytes());
        times_bytes.copy_from_slice(&times.to_le_bytes());
        daily.copy_from_slice(&[u8::from(lease.daily)]);
    }
    value
}

/// The ticket that names a lease.
pub(crate) fn encode_ticket(lease: u64) -> Vec<u8> {
    let mut ticket = Vec::with_capacity(9);
    ticket.push(TICKET_VERSION);
    ticket.extend(lease.to_le_bytes());
    ticket
}

/// The lease that a ticket names.
pub(crate) fn decode_ticket(ticket: &[u8]) -> Result<u64, String> {
    match ticket.split_first() {
        Some((&TICKET_VERSION, lease)) => lease.try_into().map(u64::from_le_bytes).ok(),
        _ => None,
    }
    .ok_or_else(|| "quota ticket is of an unknown version or corrupt".to_owned())
}

fn read(value: &[u8], ledger: &mut Ledger) -> Option<()> {
    let mut rest = value;
    let rest = &mut rest;
    if take::<1>(rest)? != [VERSION] {
        return None;
    }
    ledger.now_ms = u64::from_le_bytes(take(rest)?);
    ledger.counter = u64::from_le_bytes(take(rest)?);
    let seconds = usize::from(u16::from_le_bytes(take(rest)?));
    let quarters = usize::from(u16::from_le_bytes(take(rest)?));
    let leases = usize::from(u16::from_le_bytes(take(rest)?));
    let size = seconds * SECOND_BYTES + quarters * QUARTER_BYTES + leases * LEASE_BYTES;
    let bounded = seconds <= SECONDS as usize && quarters <= QUARTERS as usize && leases <= LEASES;
    if !bounded || rest.len() != size {
        return None;
    }
    ledger.seconds.extend(records(rest, seconds)?.iter().map(|record| {
        let whole = u128::from_le_bytes(*record);
        Second { index: whole as u32, requests: (whole >> 32) as u32, tokens: (whole >> 64) as u64 }
    }));
    ledger.quarters.extend(records(rest, quarters)?.iter().map(|record| {
        let whole = u64::from_le_bytes(*record);
        Quarter { index: whole as u32, requests: (whole >> 32) as u32 }
    }));
    for mut lease in records::<LEASE_BYTES>(rest, leases)?.iter().map(<[u8; LEASE_BYTES]>::as_slice) {
        let lease = &mut lease;
        ledger.leases.push(Lease {
            id: u64::from_le_bytes(take(lease)?),
            tokens: u64::from_le_bytes(take(lease)?),
            second: u32::from_le_bytes(take(lease)?),
            expires: u32::from_le_bytes(take(lease)?),
            daily: take(lease)? != [0],
        });
    }
    let ordered = ledger.seconds.is_sorted_by(|a, b| a.index < b.index)
        && ledger.quarters.is_sorted_by(|a, b| a.index < b.index);
    ordered.then_some(())
}

/// The next `count` records of `N` bytes.
fn records<'a, const N: usize>(rest: &mut &'a [u8], count: usize) -> Option<&'a [[u8; N]]> {
    let (head, tail) = rest.split_at_checked(count * N)?;
    *rest = tail;
    Some(head.as_chunks().0)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
