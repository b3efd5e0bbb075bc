//! The ticket of an allow: the leases it holds.
//!
//! Version 1 is the lease over all models, a little-endian u64. Version 2 is any number of leases, each with the models it
//! is over: lease u64, length u8, models in UTF-8; none of them stands for all.

const VERSION: u8 = 1;
const VERSION_WITH_MODELS: u8 = 2;

/// A lease, and the models it is over; none: all.
pub(crate) type Held<'a> = (Option<&'a str>, u64);

/// The ticket that names leases; none: there is no lease.
pub(crate) fn encode(leases: &[Held<'_>]) -> Option<Vec<u8>> {
    if let [(None, lease)] = leases {
        let mut ticket = Vec::with_capacity(1 + size_of::<u64>());
        ticket.push(VERSION);
        ticket.extend(lease.to_le_bytes());
        return Some(ticket);
    }
    let mut ticket = vec![VERSION_WITH_MODELS];
    for (models, lease) in leases {
        let models = models.unwrap_or_default().as_bytes();
        ticket.extend(lease.to_le_bytes());
        ticket.push(models.len() as u8);
        ticket.extend(models);
    }
    (!leases.is_empty()).then_some(ticket)
}

/// The leases that a ticket names.
pub(crate) fn decode(ticket: &[u8]) -> Result<Vec<Held<'_>>, String> {
    match ticket.split_first() {
        Some((&VERSION, lease)) => lease.try_into().map(|lease| vec![(None, u64::from_le_bytes(lease))]).ok(),
        Some((&VERSION_WITH_MODELS, leases)) => with_models(leases),
        _ => None,
    }
    .ok_or_else(|| "quota ticket is of an unknown version or corrupt".to_owned())
}

fn with_models(mut left: &[u8]) -> Option<Vec<Held<'_>>> {
    let mut leases = Vec::new();
    while let Some((lease, rest)) = left.split_first_chunk() {
        let (length, rest) = rest.split_first()?;
        let (models, rest) = rest.split_at_checked(usize::from(*length))?;
        let models = std::str::from_utf8(models).ok()?;
        leases.push(((!models.is_empty()).then_some(models), u64::from_le_bytes(*lease)));
        left = rest;
    }
    left.is_empty().then_some(leases)
}
