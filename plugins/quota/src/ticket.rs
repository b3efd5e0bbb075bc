//! The ticket of an allow: a version, and the lease's id as little-endian u64.

const VERSION: u8 = 1;

/// The ticket that names a lease.
pub(crate) fn encode(lease: u64) -> Vec<u8> {
    let mut ticket = Vec::with_capacity(1 + size_of::<u64>());
    ticket.push(VERSION);
    ticket.extend(lease.to_le_bytes());
    ticket
}

/// The lease that a ticket names.
pub(crate) fn decode(ticket: &[u8]) -> Result<u64, String> {
    match ticket.split_first() {
        Some((&VERSION, lease)) => lease.try_into().map(u64::from_le_bytes).ok(),
        _ => None,
    }
    .ok_or_else(|| "quota ticket is of an unknown version or corrupt".to_owned())
}
