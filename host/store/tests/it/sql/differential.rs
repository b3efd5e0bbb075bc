//! Random statements on the store and on native SQLite: equal columns, rows, counts and errors.

use tollgate_store::{Outcome, Statement};

use super::{
    engines::{Class, Engine, Native, Ours, Refused},
    generator::Generator,
};

/// Calls for each seed. The variable sets another number, for a long run.
const CALLS: usize = 2_000;
const CALLS_VARIABLE: &str = "TOLLGATE_SQL_CALLS";

/// Seeds, from 1. The variable names one, to repeat a failure.
const SEEDS: u64 = 4;
const SEED_VARIABLE: &str = "TOLLGATE_SQL_SEED";

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn random_statements_do_what_they_do_in_native_sqlite() {
    let calls = variable(CALLS_VARIABLE).unwrap_or(CALLS);
    let seeds = variable(SEED_VARIABLE).map_or(1..=SEEDS, |seed| seed..=seed);
    let mut tally = Tally::default();
    for seed in seeds {
        run(seed, calls, &mut tally);
    }
    eprintln!("{tally:?}");
    // A generator that writes nonsense would find both engines agreed.
    assert!(tally.rows > tally.calls, "{tally:?}");
    assert!(tally.refused * 3 < tally.calls, "{tally:?}");
}

/// What the runs came to.
#[derive(Debug, Default)]
struct Tally {
    calls: usize,
    refused: usize,
    rows: usize,
    written: u64,
}

fn run(seed: u64, calls: usize, tally: &mut Tally) {
    let (mut ours, mut native) = (Ours::new(), Native::new());
    let mut generator = Generator::new(seed);
    for statement in Generator::schema() {
        compare(&mut ours, &mut native, &[statement.into()], &format!("seed {seed}, schema")).unwrap();
    }
    for number in 0..calls {
        let call = generator.call();
        let place = format!("seed {seed}, call {number}");
        match compare(&mut ours, &mut native, &call, &place) {
            Ok(outcomes) => {
                tally.rows += outcomes.iter().map(|outcome| outcome.rows.len()).sum::<usize>();
                tally.written += outcomes.iter().map(|outcome| outcome.rows_written).sum::<u64>();
            }
            Err(_) => tally.refused += 1,
        }
        tally.calls += 1;
    }
    for statement in Generator::contents() {
        compare(&mut ours, &mut native, &[statement.as_str().into()], &format!("seed {seed}, at the end"))
            .unwrap();
    }
}

pub(super) fn compare(
    ours: &mut Ours,
    native: &mut Native,
    call: &[Statement],
    place: &str,
) -> Result<Vec<Outcome>, Refused> {
    let expected = native.run(call);
    let found = ours.run(call);
    match (&expected, &found) {
        (Ok(expected), Ok(found)) => {
            assert_eq!(expected.len(), found.len(), "{place}: {call:#?}");
            for (expected, found) in expected.iter().zip(found) {
                assert_eq!(expected.columns, found.columns, "{place}: columns of {call:#?}");
                assert_eq!(expected.rows, found.rows, "{place}: rows of {call:#?}");
                assert_eq!(expected.rows_written, found.rows_written, "{place}: rows written by {call:#?}");
                // Native SQLite keeps the last one over statements that insert nothing; ours then says 0.
                let known = [0, expected.last_insert_rowid];
                assert!(known.contains(&found.last_insert_rowid), "{place}: last rowid of {call:#?}");
            }
        }
        (Err(expected), Err(found)) => assert_eq!(expected, found, "{place}: error of {call:#?}"),
        _ => panic!("{place}: {call:#?}\nnative: {expected:?}\nours: {found:?}"),
    }
    assert!(!matches!(&found, Err(Refused { class: Class::Failed, .. })), "{place}: {found:?}");
    found
}
