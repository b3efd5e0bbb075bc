//! Metadata: a JSON object beside each vector, and what of it is in memory.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::limits::{INDEXED_TEXT_BYTES, PROPERTY_BYTES};

/// A property that filters can ask about. Dots in its name lead into objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) name: String,
}

/// The value of an indexed property. Lists and objects have none, and `null` is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    None,
    Boolean(bool),
    Number(f64),
    Text(Arc<str>),
}

impl Cell {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Boolean(*value),
            Value::Number(number) => number.as_f64().map_or(Self::None, Self::Number),
            Value::String(text) => Self::Text(cut(text).into()),
            Value::Null | Value::Array(_) | Value::Object(_) => Self::None,
        }
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + if let Self::Text(text) = self { text.len() + 2 * size_of::<usize>() } else { 0 }
    }
}

impl Property {
    /// Its values, one for each property.
    pub(super) fn cells(properties: &[Self], metadata: Option<&Map<String, Value>>) -> Vec<Cell> {
        let cell = |property: &Self| {
            metadata.and_then(|metadata| property.find(metadata)).map_or(Cell::None, Cell::of)
        };
        properties.iter().map(cell).collect()
    }

    fn find<'a>(&self, metadata: &'a Map<String, Value>) -> Option<&'a Value> {
        let mut path = self.name.split('.');
        let first = metadata.get(path.next()?)?;
        path.try_fold(first, |value, name| value.as_object()?.get(name))
    }

    /// The metadata without what is not indexed, as JSON; none: nothing is left.
    pub(super) fn pick(properties: &[Self], metadata: &Map<String, Value>) -> Option<String> {
        let mut picked = Map::new();
        for property in properties {
            let Some(value) = property.find(metadata) else { continue };
            let mut path: Vec<&str> = property.name.split('.').collect();
            let Some(last) = path.pop() else { continue };
            let mut place = &mut picked;
            for name in path {
                let inner = place.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(inner) = inner else { return None };
                place = inner;
            }
            place.insert(last.to_owned(), value.clone());
        }
        (!picked.is_empty()).then(|| Value::Object(picked).to_string())
    }
}

/// The beginning of a text that counts for filters.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(INDEXED_TEXT_BYTES)).unwrap_or(text)
}

/// Reads metadata. The error is for people.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    let metadata: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    check_names(&metadata)?;
    Ok(metadata)
}

fn check_names(object: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in object {
        check_name(name)?;
        if let Value::Object(inner) = value {
            check_names(inner)?;
        }
    }
    Ok(())
}

/// A name between the dots of a property.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let wrong =
        name.is_empty() || name.len() > PROPERTY_BYTES || name.starts_with('$') || name.contains(['.', '"']);
    if wrong {
        let shown: String = name.chars().take(64).collect();
        let text = format!(
            "the name {shown:?}: a name has 1 to {PROPERTY_BYTES} bytes, no dot, no quote, and no $ at its start"
        );
        return Err(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(names: &[&str]) -> Vec<Property> {
        names.iter().map(|name| Property { name: (*name).to_owned() }).collect()
    }

    #[test]
    fn dots_lead_into_objects() {
        let metadata = parse(r#"{"a": {"b": {"c": 1}, "d": [1]}, "e": null, "f": true}"#).unwrap();
        let indexed = properties(&["a.b.c", "a.d", "e", "f", "a.b", "f.x", "none"]);
        let cells = Property::cells(&indexed, Some(&metadata));
        let expected = [Cell::Number(1.0), Cell::None, Cell::None, Cell::Boolean(true)];
        assert_eq!(cells[..4], expected);
        assert!(cells[4..].iter().all(|cell| *cell == Cell::None));
        let picked = Property::pick(&properties(&["a.b.c", "f", "none"]), &metadata).unwrap();
        assert_eq!(picked, r#"{"a":{"b":{"c":1}},"f":true}"#);
        assert_eq!(Property::pick(&properties(&["none"]), &metadata), None);
        // One property may lie within another, in whichever order they stand.
        for names in [["a.b", "a.b.c"], ["a.b.c", "a.b"]] {
            let picked = Property::pick(&properties(&names), &metadata).unwrap();
            assert_eq!(picked, r#"{"a":{"b":{"c":1}}}"#);
        }
    }

    #[test]
    fn long_texts_count_up_to_a_whole_character() {
        let text = "ä".repeat(INDEXED_TEXT_BYTES);
        assert_eq!(Cell::of(&Value::String(text.clone())), Cell::Text(cut(&text).into()));
        assert_eq!(cut(&text).len(), INDEXED_TEXT_BYTES);
        assert_eq!(cut(&format!("a{text}")).len(), INDEXED_TEXT_BYTES - 1);
    }

    #[test]
    fn what_is_no_object_or_has_wrong_names_is_refused() {
        let deep = "{\"a\":".repeat(1_000) + "1" + &"}".repeat(1_000);
        for text in ["", "1", "[]", "{", r#"{"a": NaN}"#, r#"{"a": 1e999}"#, &deep] {
            assert!(parse(text).is_err(), "{text}");
        }
        for name in ["", "a.b", "$a", "a\\\"b", &"x".repeat(PROPERTY_BYTES + 1)] {
            assert!(parse(&format!("{{\"{name}\": 1}}")).unwrap_err().contains("name"), "{name}");
            assert!(parse(&format!("{{\"a\": {{\"{name}\": 1}}}}")).unwrap_err().contains("name"), "{name}");
        }
    }
}
