//! What requests cost: the prices of the configuration, by model.

use std::collections::HashMap;
use std::sync::Arc;

use super::usage::Tokens;
use crate::pattern;

/// Tokens that a price is for.
const PER: u128 = 1_000_000;

/// The most that one request costs, in billionths: over twice the largest limit that there can be, and a thousand such still
/// have a sum in 64 bits.
const COST_MOST: u64 = 1 << 53;

/// Prices of a million tokens each, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt, as far as no cache is concerned.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of what of the prompt is written to a cache.
    pub cache_write: u64,
    /// Of what of the prompt is read from a cache.
    pub cache_read: u64,
}

impl Price {
    /// What a request costs at most, in billionths, whose prompt has so many of all its tokens.
    pub(super) fn at_most(&self, prompt: u64, all: u64) -> u64 {
        let input = self.input.max(self.cache_write).max(self.cache_read);
        rounded_up([(prompt, input), (all.saturating_sub(prompt), self.output)])
    }

    /// What was used costs, in billionths.
    pub(super) fn of(&self, tokens: &Tokens) -> u64 {
        let Tokens { input, output, cache_read, cache_write, .. } = *tokens;
        let plain = input.saturating_sub(cache_read).saturating_sub(cache_write);
        rounded_up([
            (plain, self.input),
            (output, self.output),
            (cache_write, self.cache_write),
            (cache_read, self.cache_read),
        ])
    }
}

fn rounded_up<const N: usize>(parts: [(u64, u64); N]) -> u64 {
    let sum: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
    u64::try_from(sum.div_ceil(PER)).unwrap_or(u64::MAX).min(COST_MOST)
}

/// The price table. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Prices(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    names: HashMap<String, Price>,
    /// Longest first.
    patterns: Vec<(String, Price)>,
}

impl Prices {
    /// A table of models, or patterns of them, and their prices.
    pub fn new(prices: impl IntoIterator<Item = (String, Price)>) -> Prices {
        let (mut patterns, names): (Vec<_>, Vec<_>) =
            prices.into_iter().partition(|(model, _)| model.contains('*'));
        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        Prices(Arc::new(Table { names: names.into_iter().collect(), patterns }))
    }

    /// The price of a model: the one of its name, else the one of the longest pattern that it fits.
    pub fn of(&self, model: &str) -> Option<Price> {
        let Table { names, patterns } = &*self.0;
        let by_pattern =
            || patterns.iter().find(|(pattern, _)| pattern::fits(pattern, model)).map(|(_, price)| price);
        names.get(model).or_else(by_pattern).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::ONE;

    fn of_input(input: u64) -> Price {
        Price { input, ..Price::default() }
    }

    #[test]
    fn a_name_counts_before_a_pattern_and_a_longer_pattern_before_a_shorter() {
        let table = [("*", 1), ("gpt-4*", 2), ("gpt-4o*", 3), ("gpt-4o", 4)];
        let prices = Prices::new(table.map(|(model, input)| (model.to_owned(), of_input(input))));
        for (model, input) in [("gpt-4o", 4), ("gpt-4o-mini", 3), ("gpt-4", 2), ("claude", 1)] {
            assert_eq!(prices.of(model), Some(of_input(input)), "{model}");
        }
        assert_eq!(Prices::new([("gpt".to_owned(), of_input(1))]).of("claude"), None);
    }

    #[test]
    fn every_kind_of_token_has_its_price_and_fractions_are_rounded_up() {
        let price = Price { input: 3 * ONE, output: 15 * ONE, cache_write: 4 * ONE, cache_read: ONE / 3 };
        let tokens = Tokens { input: 1_000, output: 100, cache_read: 700, cache_write: 200, reasoning: 50 };
        assert_eq!(price.of(&tokens), 100 * 3_000 + 100 * 15_000 + 200 * 4_000 + 233_334);
        assert_eq!(price.at_most(1_000, 1_100), 1_000 * 4_000 + 100 * 15_000);
        assert_eq!(Price { input: 1, ..price }.of(&Tokens { input: 1, ..Tokens::default() }), 1);
        let most = Price { input: u64::MAX, output: u64::MAX, cache_write: u64::MAX, cache_read: u64::MAX };
        assert_eq!(most.at_most(u64::MAX, u64::MAX), COST_MOST);
    }
}
