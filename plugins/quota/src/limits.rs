//! What the quota bounds itself by.

/// Milliseconds in a bucket of the minute's window. Finer buckets would come closer to the limit and make every value
/// larger.
pub(crate) const SECOND_MS: u64 = 1_000;

/// Buckets of the minute's window: any 60 s touch at most 61 seconds.
pub(crate) const SECONDS: u32 = 61;

/// Milliseconds in a bucket of the day's window: a quarter of an hour, the 96th part.
pub(crate) const QUARTER_MS: u64 = 900_000;

/// Seconds in a bucket of the day's window.
pub(crate) const QUARTER_SECONDS: u32 = 900;

/// Buckets of the day's window: any 24 h touch at most 97 quarters of an hour.
pub(crate) const QUARTERS: u32 = 97;

/// Seconds after which an allow that nobody settles or renews is forgotten, its charge staying as estimated. Long
/// enough that a host which renews once a minute may miss four times; short enough that the leases of a crashed host
/// do not fill the list.
pub(crate) const LEASE_SECONDS: u32 = 300;

/// Requests of one subject in flight. Each takes 25 bytes of the value that every admission reads and writes, 41 with a
/// budget, so this bounds the value to 170 KiB, a sixth of what a store takes.
pub(crate) const LEASES: usize = 4_096;

/// Milliseconds after which a subject with too many requests in flight may try again.
pub(crate) const LEASES_RETRY_MS: u64 = 1_000;

/// Milliseconds by which the clock may step back and the ring simply waits for it. After a larger step the clock had
/// been wrong before, and the ring moves back with it rather than stand still for as long.
pub(crate) const STEP_BACK_MS: u64 = 60_000;

/// Milliseconds that what was spent is kept after its last change, unless a total is limited: past the longest month.
pub(crate) const MONTH_MS: u64 = 32 * 86_400_000;

/// Milliseconds that what was spent of a total is kept: a hundred years, since it never begins anew.
pub(crate) const KEPT_MS: u64 = 100 * 366 * 86_400_000;

/// Groups of models that limits of one subject may name. Each is a value of its own that is read and written for a
/// request, and has its lease in the ticket.
pub(crate) const GROUPS: usize = 8;

/// Bytes of a group's name, so that a ticket with a lease in each holds them all.
pub(crate) const GROUP_BYTES: usize = 100;
