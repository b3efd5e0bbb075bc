//! How much a request asks for: what it may come to, and what it surely needs.

/// An amount of anything that is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    /// What is known beforehand, such as the prompt.
    pub(crate) least: u64,
    /// What it may come to, such as the prompt and the longest answer.
    pub(crate) most: u64,
}

impl Demand {
    /// One request.
    pub(crate) const ONE: Demand = Demand { least: 1, most: 1 };

    /// What to reserve under a limit of which `current` is charged; none: it does not fit.
    ///
    /// Clients name ceilings far above what they use. Where the ceiling does not fit, a caller who has used no more than
    /// half the limit may still go on, if what is known beforehand fits: it reserves all that is left, so that nobody
    /// else gets in beside it. What is reserved never exceeds a limit; only what such a request uses beyond it can.
    pub(crate) fn reservation(self, current: u64, limit: u64) -> Option<u64> {
        let fits = self.most_before(limit).is_some_and(|most| current <= most);
        fits.then(|| self.most.min(limit.saturating_sub(current)))
    }

    /// The most that may be charged already for the demand to fit; none: it never fits.
    pub(crate) fn most_before(self, limit: u64) -> Option<u64> {
        let ceiling = limit.checked_sub(self.most);
        let little = limit.checked_sub(self.least.max(1)).map(|left| left.min(limit / 2));
        ceiling.max(little)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_that_fits_is_reserved_and_one_that_does_not_takes_what_is_left() {
        let demand = Demand { least: 10, most: 80 };
        for (current, reservation) in
            [(0, Some(80)), (20, Some(80)), (21, Some(79)), (50, Some(50)), (51, None), (200, None)]
        {
            assert_eq!(demand.reservation(current, 100), reservation, "{current}");
        }
        let large = Demand { least: 10, most: 1_000 };
        assert_eq!(large.reservation(0, 100), Some(100));
        assert_eq!(large.reservation(51, 100), None);
        assert_eq!(large.reservation(0, 9), None, "what it surely needs does not fit");
        assert_eq!(Demand { least: 0, most: 5 }.reservation(0, 0), None);
        assert_eq!(Demand { least: 0, most: 0 }.reservation(0, 0), Some(0));
        assert_eq!(Demand::ONE.reservation(1, 2), Some(1));
        assert_eq!(Demand::ONE.reservation(2, 2), None);
    }
}
