//! What bounds a subject, over all its models or over some of them.

use tollgate_guest::admission::{Limit, Limits, Measure};

/// The limits of one scope; none: unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) rpm: Option<u64>,
    pub(crate) tpm: Option<u64>,
    pub(crate) rpd: Option<u64>,
    pub(crate) concurrency: Option<u64>,
    pub(crate) tokens: Budgets,
    pub(crate) cost: Budgets,
}

/// A budget for each of the periods that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Budgets {
    pub(crate) day: Option<u64>,
    pub(crate) month: Option<u64>,
    pub(crate) total: Option<u64>,
}

impl Budgets {
    pub(crate) fn is_unlimited(&self) -> bool {
        self.day.is_none() && self.month.is_none() && self.total.is_none()
    }
}

impl Bounds {
    /// What holds over all models.
    pub(crate) fn over_all(limits: &Limits) -> Bounds {
        let Limits { rpm, tpm, rpd, .. } = *limits;
        limits
            .further
            .iter()
            .filter(|limit| limit.models.is_none())
            .fold(Bounds { rpm, tpm, rpd, ..Bounds::default() }, Bounds::with)
    }

    /// What holds over some models, as the operator named them.
    pub(crate) fn over(limits: &Limits, models: &str) -> Bounds {
        let own = limits.further.iter().filter(|limit| limit.models.as_deref() == Some(models));
        own.fold(Bounds::default(), Bounds::with)
    }

    /// Of two limits of one measure the lower counts.
    fn with(mut self, limit: &Limit) -> Bounds {
        let own = match limit.measure {
            Measure::Rpm => &mut self.rpm,
            Measure::Tpm => &mut self.tpm,
            Measure::Rpd => &mut self.rpd,
            Measure::Concurrency => &mut self.concurrency,
            Measure::TokensPerDay => &mut self.tokens.day,
            Measure::TokensPerMonth => &mut self.tokens.month,
            Measure::TokensTotal => &mut self.tokens.total,
            Measure::CostPerDay => &mut self.cost.day,
            Measure::CostPerMonth => &mut self.cost.month,
            Measure::CostTotal => &mut self.cost.total,
        };
        *own = Some(own.map_or(limit.most, |other| other.min(limit.most)));
        self
    }

    pub(crate) fn is_unlimited(&self) -> bool {
        *self == Bounds::default()
    }

    pub(crate) fn has_budget(&self) -> bool {
        !self.tokens.is_unlimited() || !self.cost.is_unlimited()
    }
}

/// The models that limits name, each once.
pub(crate) fn models(limits: &Limits) -> Vec<&str> {
    let mut models: Vec<&str> = limits.further.iter().filter_map(|limit| limit.models.as_deref()).collect();
    models.sort_unstable();
    models.dedup();
    models
}
