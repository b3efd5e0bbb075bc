//! Parameters of a statement: a list in JSON.

use serde_json::Value as Data;
use tollgate::fuzzing::{parameters, row};
use tollgate_store::{Database, Statement};

use super::store::Stored;

/// Parameters of one statement; more only take longer.
const MOST: usize = 64;

thread_local! {
    static STORED: (Stored, Database) = {
        let stored = Stored::new();
        let database = stored.store.database("fuzz").unwrap();
        (stored, database)
    };
}

/// What is taken as parameters comes back from SQLite as it went, and is written so that it is taken as the same again.
pub fn check(input: &[u8]) {
    let Ok(data) = serde_json::from_slice::<Vec<Data>>(input) else { return };
    let Some(values) = parameters(data).filter(|values| (1..=MOST).contains(&values.len())) else { return };
    let places: Vec<_> = (1..=values.len()).map(|number| format!("?{number}")).collect();
    let statement = Statement::new(format!("SELECT {}", places.join(", ")), values.clone());
    let outcome =
        STORED.with(|(stored, database)| stored.runtime.block_on(database.query(statement)).unwrap());
    assert_eq!(outcome.rows, [values.as_slice()]);
    assert_eq!(parameters(row(values.clone())).as_ref(), Some(&values));
}
