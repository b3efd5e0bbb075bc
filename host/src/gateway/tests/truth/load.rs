//! Who asks for what, and what the upstream makes of it: all of it from a seed.

use fastrand::Rng;

use crate::{
    gateway::AccountSpec,
    keys::{NewKey, Settings},
    limit_set::LimitSet,
    secret::Secret,
};

/// What a token of a prompt costs, in billionths.
pub(super) const IN: u64 = 2_000;

/// What a token of an answer costs, in billionths.
pub(super) const OUT: u64 = 6_000;

/// Models that clients ask for; keys have limits over those that begin with `big-`.
pub(super) const MODELS: [&str; 3] = ["big-1", "big-2", "small"];

/// The pattern of those.
pub(super) const BIG: &str = "big-*";

/// A key whose ceilings are far above what it may use.
const BOASTER: usize = 7;

/// A request as its client makes it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: usize,
    pub(super) model: &'static str,
    pub(super) stream: bool,
    /// Tokens of the prompt, as the gateway estimates them.
    pub(super) prompt: u64,
    /// The most that the client allows for the answer.
    pub(super) answer: u64,
}

/// What the upstream does with one attempt.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) act: Act,
    /// Whether it stops in the middle until the test goes on: before the head of a plain answer, after the first event of
    /// a stream.
    pub(super) holds: bool,
    /// Tokens that it reports.
    pub(super) input: u64,
    pub(super) output: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Answer,
    /// A stream that tells nothing of what it used.
    Unreported,
    /// An error, perhaps with seconds to wait.
    Refuse(u16, Option<u64>),
    /// The connection breaks before the head.
    Break,
    /// A stream breaks after its first event.
    BreakOff,
    /// A stream brings an error after its first event.
    Fail,
    /// A stream never begins.
    Silence,
}

/// What each key is limited to: over all models, and over the big ones.
pub(super) fn keys(random: &mut Rng) -> Vec<(NewKey, [LimitSet; 2])> {
    let mut some = |least: u64, most: u64| Some(random.u64(least..=most));
    let none = LimitSet::default;
    let limits = vec![
        [LimitSet { rpm: some(3, 8), ..none() }, none()],
        [LimitSet { tpm: some(1_500, 3_000), ..none() }, none()],
        [LimitSet { rpm: some(4, 9), rpd: some(30, 60), ..none() }, none()],
        [LimitSet { concurrency: some(2, 4), ..none() }, none()],
        [LimitSet { tokens_per_day: some(5_000, 12_000), ..none() }, none()],
        [LimitSet { cost_per_day: Some(0.05), cost_total: Some(0.08), ..none() }, none()],
        [
            LimitSet { tokens_per_month: some(9_000, 12_000), tokens_total: some(15_000, 20_000), ..none() },
            none(),
        ],
        [LimitSet { tpm: some(300, 600), tokens_per_day: some(8_000, 10_000), ..none() }, none()],
        [
            LimitSet { rpd: some(50, 90), ..none() },
            LimitSet { rpm: some(2, 5), tpm: some(1_000, 2_000), ..none() },
        ],
        [
            LimitSet { rpm: some(5, 9), cost_per_month: Some(0.06), ..none() },
            LimitSet { concurrency: some(1, 3), ..none() },
        ],
        [none(), none()],
        [
            LimitSet {
                rpm: some(4, 8),
                tpm: some(2_000, 3_000),
                rpd: some(60, 90),
                concurrency: some(3, 6),
                tokens_per_day: some(10_000, 15_000),
                cost_per_day: Some(0.07),
                ..none()
            },
            LimitSet { rpm: some(2, 4), tokens_per_day: some(6_000, 9_000), ..none() },
        ],
    ];
    let named = limits.into_iter().enumerate().map(|(number, [all, big])| {
        let model_limits = [(BIG.to_owned(), big.clone())].into_iter().filter(|(_, own)| *own != none());
        let settings =
            Settings { limits: all.clone(), model_limits: model_limits.collect(), ..Settings::default() };
        (NewKey { name: format!("key-{number}"), settings }, [all, big])
    });
    named.collect()
}

/// The accounts, at one upstream; each has its name as its key.
pub(super) fn accounts(url: &str) -> Vec<AccountSpec> {
    let none = LimitSet::default;
    let limited = |name: &str, priority, limits| AccountSpec {
        name: name.to_owned(),
        base_url: url.to_owned(),
        api_key: Secret::new(name),
        priority,
        limits,
        ..AccountSpec::default()
    };
    let big = ["big-1".to_owned(), "big-2".to_owned()];
    vec![
        limited("by-requests", 1, LimitSet { rpm: Some(12), ..none() }),
        AccountSpec {
            models: big.to_vec(),
            ..limited("by-tokens", 1, LimitSet { tpm: Some(6_000), ..none() })
        },
        limited(
            "by-day",
            1,
            LimitSet {
                rpd: Some(200),
                concurrency: Some(2),
                tokens_per_day: Some(20_000),
                cost_per_month: Some(0.9),
                ..none()
            },
        ),
        limited("by-all", 2, LimitSet { rpm: Some(30), tpm: Some(20_000), concurrency: Some(6), ..none() }),
        limited("wide", 3, LimitSet { concurrency: Some(12), ..none() }),
        limited("last", 4, LimitSet { concurrency: Some(4), ..none() }),
    ]
}

/// A request of a key.
pub(super) fn asked(random: &mut Rng, key: usize) -> Asked {
    let answer = if key == BOASTER { random.u64(200..5_000) } else { random.u64(10..500) };
    Asked {
        key,
        model: MODELS[random.usize(..MODELS.len())],
        stream: random.u8(..10) < 7,
        prompt: random.u64(1..100),
        answer,
    }
}

/// What becomes of an attempt of a request.
pub(super) fn plan(seed: u64, id: u64, attempt: usize, asked: &Asked) -> Plan {
    let mut random = Rng::with_seed(seed ^ (id << 8) ^ attempt as u64);
    let act = act(&mut random, asked.stream);
    // The estimate of a prompt is mostly right, and that of an answer mostly far too high; both err the other way too.
    let input = if random.u8(..10) == 0 { 2 * asked.prompt + 3 } else { asked.prompt };
    let output = match random.u8(..20) {
        0 => asked.answer + random.u64(..50),
        1..5 => asked.answer,
        _ => random.u64(..=asked.answer.min(150)),
    };
    let can_hold = matches!(act, Act::Answer | Act::Unreported | Act::BreakOff | Act::Fail);
    Plan { act, holds: can_hold && random.u8(..4) == 0, input, output }
}

fn act(random: &mut Rng, stream: bool) -> Act {
    match random.u32(..1_000) {
        0..30 => Act::Refuse(400, None),
        30..32 => Act::Refuse(401, None),
        32..33 => Act::Refuse(402, None),
        33..40 => Act::Refuse(429, Some(random.u64(1..90))),
        40..43 => Act::Refuse(500, None),
        43..47 => Act::Refuse(503, None),
        47..48 => Act::Refuse(529, None),
        48..60 => Act::Break,
        60..63 if stream => Act::Silence,
        63..85 if stream => Act::BreakOff,
        85..100 if stream => Act::Fail,
        100..140 if stream => Act::Unreported,
        _ => Act::Answer,
    }
}
