//! Filters: what the metadata of a match must be.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{
    limits::{FILTER_BYTES, FILTER_VALUES},
    metadata::{Cell, Property},
};

/// Conditions that all must hold.
#[derive(Clone, Debug)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    /// Which of the indexed properties.
    property: usize,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// One of these, or none of them.
    Among(Vec<Cell>, bool),
    /// Before or after a value of its own type.
    Ordered(Cell, fn(Ordering) -> bool),
}

impl Filter {
    /// Reads a filter, such as `{"kind": "image", "size.width": {"$gte": 100, "$lt": 500}}`. The error is for people.
    pub(super) fn parse(text: &str, indexed: &[Property]) -> Result<Self, String> {
        if text.len() > FILTER_BYTES {
            return Err(format!("a filter has at most {FILTER_BYTES} bytes"));
        }
        let conditions: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("filter: {error}"))?;
        if conditions.is_empty() {
            return Err("filter: it is empty; leave it out instead".to_owned());
        }
        let mut found = Vec::new();
        for (name, condition) in &conditions {
            let property = indexed.iter().position(|property| property.name == *name).ok_or_else(|| {
                let shown: String = name.chars().take(64).collect();
                let names: Vec<&str> = indexed.iter().map(|property| property.name.as_str()).collect();
                format!("filter: property {shown:?} is not indexed; indexed are: {}", names.join(", "))
            })?;
            for test in tests(condition).map_err(|error| format!("filter: property {name:?}: {error}"))? {
                found.push(Condition { property, test });
            }
        }
        Ok(Self(found))
    }

    /// Whether a vector with these values of the indexed properties is wanted.
    pub(super) fn takes(&self, cells: &[Cell]) -> bool {
        let holds = |condition: &Condition| {
            cells.get(condition.property).is_some_and(|cell| condition.test.holds(cell))
        };
        self.0.iter().all(holds)
    }
}

fn tests(condition: &Value) -> Result<Vec<Test>, String> {
    let Value::Object(operators) = condition else {
        return Ok(vec![Test::Among(vec![value(condition)?], true)]);
    };
    if operators.is_empty() {
        return Err("an operator is missing".to_owned());
    }
    operators.iter().map(|(name, operand)| test(name, operand)).collect()
}

fn test(name: &str, operand: &Value) -> Result<Test, String> {
    match name {
        "$eq" => Ok(Test::Among(vec![value(operand)?], true)),
        "$ne" => Ok(Test::Among(vec![value(operand)?], false)),
        "$in" => Ok(Test::Among(values(operand)?, true)),
        "$nin" => Ok(Test::Among(values(operand)?, false)),
        "$lt" => ordered(operand, Ordering::is_lt),
        "$lte" => ordered(operand, Ordering::is_le),
        "$gt" => ordered(operand, Ordering::is_gt),
        "$gte" => ordered(operand, Ordering::is_ge),
        _ => {
            let shown: String = name.chars().take(64).collect();
            Err(format!("{shown:?} is no operator; there are $eq, $ne, $lt, $lte, $gt, $gte, $in and $nin"))
        }
    }
}

fn value(operand: &Value) -> Result<Cell, String> {
    match operand {
        Value::Array(_) | Value::Object(_) => {
            Err("a text, a number, a boolean or null is compared".to_owned())
        }
        operand => Ok(Cell::of(operand)),
    }
}

fn values(operand: &Value) -> Result<Vec<Cell>, String> {
    match operand {
        Value::Array(list) if list.is_empty() => Err("the list is empty".to_owned()),
        Value::Array(list) if list.len() > FILTER_VALUES => {
            Err(format!("a list has at most {FILTER_VALUES} values"))
        }
        Value::Array(list) => list.iter().map(value).collect(),
        _ => Err("$in and $nin take a list".to_owned()),
    }
}

fn ordered(operand: &Value, wanted: fn(Ordering) -> bool) -> Result<Test, String> {
    match value(operand)? {
        cell @ (Cell::Number(_) | Cell::Text(_)) => Ok(Test::Ordered(cell, wanted)),
        _ => Err("only texts and numbers have an order".to_owned()),
    }
}

impl Test {
    fn holds(&self, cell: &Cell) -> bool {
        match self {
            Self::Among(cells, wanted) => cells.contains(cell) == *wanted,
            Self::Ordered(bound, wanted) => compare(cell, bound).is_some_and(wanted),
        }
    }
}

fn compare(cell: &Cell, bound: &Cell) -> Option<Ordering> {
    match (cell, bound) {
        (Cell::Number(cell), Cell::Number(bound)) => cell.partial_cmp(bound),
        (Cell::Text(cell), Cell::Text(bound)) => Some(cell.cmp(bound)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexed() -> Vec<Property> {
        ["kind", "size.width"].map(|name| Property { name: name.to_owned() }).to_vec()
    }

    fn takes(filter: &str, kind: Cell, width: Cell) -> bool {
        Filter::parse(filter, &indexed()).unwrap().takes(&[kind, width])
    }

    #[test]
    fn each_operator_takes_what_it_says() {
        let text = |text: &str| Cell::Text(text.into());
        let cases = [
            (r#"{"kind": "a"}"#, text("a"), true),
            (r#"{"kind": "a"}"#, text("b"), false),
            (r#"{"kind": {"$eq": null}}"#, Cell::None, true),
            (r#"{"kind": null}"#, text("a"), false),
            (r#"{"kind": {"$ne": "a"}}"#, text("a"), false),
            (r#"{"kind": {"$ne": "a"}}"#, Cell::None, true),
            (r#"{"kind": {"$ne": true}}"#, Cell::Boolean(false), true),
            (r#"{"kind": {"$in": ["a", 1, true]}}"#, Cell::Boolean(true), true),
            (r#"{"kind": {"$in": ["a", 1, true]}}"#, Cell::Number(2.0), false),
            (r#"{"kind": {"$nin": ["a", null]}}"#, Cell::None, false),
            (r#"{"kind": {"$nin": ["a"]}}"#, Cell::None, true),
            (r#"{"kind": {"$lt": 2}}"#, Cell::Number(1.5), true),
            (r#"{"kind": {"$lt": 2}}"#, Cell::Number(2.0), false),
            (r#"{"kind": {"$lte": 2}}"#, Cell::Number(2.0), true),
            (r#"{"kind": {"$gt": "m"}}"#, text("n"), true),
            (r#"{"kind": {"$gt": "m"}}"#, text("m"), false),
            (r#"{"kind": {"$gte": "m", "$lt": "n"}}"#, text("mm"), true),
            (r#"{"kind": {"$gte": "m", "$lt": "n"}}"#, text("n"), false),
            (r#"{"kind": {"$gt": 1}}"#, text("2"), false),
            (r#"{"kind": {"$lt": 1}}"#, Cell::None, false),
        ];
        for (filter, cell, expected) in cases {
            assert_eq!(takes(filter, cell.clone(), Cell::None), expected, "{filter} of {cell:?}");
        }
        let both = r#"{"kind": "a", "size.width": {"$gte": 10}}"#;
        assert!(takes(both, text("a"), Cell::Number(10.0)));
        assert!(!takes(both, text("a"), Cell::Number(9.0)));
        assert!(!takes(both, text("b"), Cell::Number(10.0)));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        let many = format!(r#"{{"kind": {{"$in": [{}1]}}}}"#, "1,".repeat(FILTER_VALUES));
        let long = format!(r#"{{"kind": "{}"}}"#, "x".repeat(FILTER_BYTES));
        let deep = format!(r#"{{"kind": {}1{}}}"#, "[".repeat(900), "]".repeat(900));
        for (filter, reason) in [
            ("", "filter"),
            ("[]", "filter"),
            ("{}", "empty"),
            (r#"{"url": 1}"#, "indexed are: kind, size.width"),
            (r#"{"size": {"width": 1}}"#, "not indexed"),
            (r#"{"kind": {}}"#, "operator is missing"),
            (r#"{"kind": {"$regex": "x"}}"#, "no operator"),
            (r#"{"kind": {"$in": 1}}"#, "take a list"),
            (r#"{"kind": {"$in": []}}"#, "empty"),
            (r#"{"kind": {"$in": [[1]]}}"#, "compared"),
            (r#"{"kind": [1]}"#, "compared"),
            (r#"{"kind": {"$lt": true}}"#, "order"),
            (r#"{"kind": {"$gte": null}}"#, "order"),
            (r#"{"kind": 1e999}"#, "filter"),
            (&many, "at most 100"),
            (&long, "at most 2048"),
            (&deep, "filter"),
        ] {
            let error = Filter::parse(filter, &indexed()).unwrap_err();
            assert!(error.contains(reason), "{filter}: {error}");
        }
    }
}
