//! What stores hold, in JSON. SQL values are numbers, text and null as they are, a blob as `{"hex": "…"}`, both ways.

use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use tollgate_store::sql::limits::PARAMETERS;
use tollgate_store::{Entry, Outcome, Page, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, OneOfBuilder, SchemaType, Type};
use utoipa::{PartialSchema as _, ToSchema};

use super::error::ApiError;
use super::list::bounded;

/// Bytes in JSON: as text where they are UTF-8, else as hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    /// UTF-8.
    Text(String),
    /// Any bytes: `{"hex": "00ff"}`.
    Hex(Hex),
}

/// Bytes as hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hex {
    #[schema(pattern = "^([0-9a-fA-F]{2})*$")]
    hex: String,
}

impl Content {
    /// The bytes themselves.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hex(Hex { hex }) => hex::decode(hex)
                .map_err(|error| ApiError::invalid(format!("`hex` has no hexadecimal digits: {error}"))),
        }
    }
}

/// Not by serde's own way of untagged enums, which first reads anything whole: `[],` would be three bytes, and a list of ten
/// times that.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Of;

        impl<'de> Visitor<'de> for Of {
            type Value = Content;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text or {\"hex\": \"00ff\"}")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
                Hex::deserialize(MapAccessDeserializer::new(map)).map(Content::Hex)
            }
        }

        from.deserialize_any(Of)
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(Hex { hex: hex::encode(bytes) }),
        }
    }
}

/// A page of keys of a kv store.
#[derive(Serialize, ToSchema)]
pub(crate) struct KvPage {
    /// In the order of their UTF-8 bytes.
    keys: Vec<String>,
    /// Where the next page starts; null: this was the last. A page may be short and not be the last.
    cursor: Option<String>,
}

impl From<Page> for KvPage {
    fn from(Page { keys, cursor }: Page) -> Self {
        Self { keys, cursor }
    }
}

/// An entry of a kv store.
#[derive(Serialize, ToSchema)]
pub(crate) struct KvEntry {
    key: String,
    value: Content,
    /// Grows with each write.
    version: u64,
    /// Milliseconds since 1970; null: it stays.
    expires_ms: Option<u64>,
}

impl KvEntry {
    pub(crate) fn new(key: String, entry: &Entry) -> Self {
        let value = Content::from(&*entry.value);
        Self { key, value, version: entry.version, expires_ms: entry.expires_ms }
    }
}

/// What a statement returned and changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct SqlResult {
    /// Names of the columns; empty for a statement that returns no rows.
    #[schema(value_type = Vec<String>)]
    columns: Arc<[String]>,
    #[serde(serialize_with = "rows")]
    #[schema(schema_with = schema_of_rows)]
    rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted.
    rows_written: u64,
    /// The rowid of the statement's last insert, or 0.
    last_insert_rowid: i64,
}

impl From<Outcome> for SqlResult {
    fn from(outcome: Outcome) -> Self {
        Self {
            columns: outcome.columns,
            rows: outcome.rows,
            rows_written: outcome.rows_written,
            last_insert_rowid: outcome.last_insert_rowid,
        }
    }
}

/// Rows of what [`Cell`] writes.
fn schema_of_rows() -> Array {
    let plain = Object::with_type(SchemaType::from_iter([Type::Null, Type::Number, Type::String]));
    let row = Array::new(OneOfBuilder::new().item(plain).item(Hex::schema()));
    ArrayBuilder::new()
        .items(RefOr::from(row))
        .description(Some("The rows, each as long as `columns`."))
        .build()
}

fn rows<S: Serializer>(rows: &[Vec<Value>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(rows.iter().map(|row| Row(row)))
}

/// A row of a result.
pub(crate) struct Row<'a>(pub(crate) &'a [Value]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(Cell))
    }
}

/// A value of a result, written as it is read: as a `serde_json::Value` an empty blob would take hundreds of bytes.
struct Cell<'a>(&'a Value);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => to.serialize_unit(),
            Value::Integer(integer) => to.serialize_i64(*integer),
            Value::Real(real) if real.is_finite() => to.serialize_f64(*real),
            // JSON has no infinities.
            Value::Real(real) => to.collect_str(real),
            Value::Text(text) => to.serialize_str(text),
            Value::Blob(bytes) => Hex { hex: hex::encode(bytes) }.serialize(to),
        }
    }
}

/// A parameter of a statement, which refuses what the database cannot hold at its first byte.
#[derive(Debug, PartialEq)]
pub(crate) struct Parameter(pub(crate) Value);

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ParameterVisitor).map(Parameter)
    }
}

struct ParameterVisitor;

impl<'de> Visitor<'de> for ParameterVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("null, a number, a text or a blob as {\"hex\": \"00ff\"}")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Integer(flag.into()))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Value, E> {
        Ok(Value::Integer(integer))
    }

    fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<Value, E> {
        let fits = i64::try_from(integer);
        fits.map(Value::Integer).map_err(|_| E::custom(format_args!("{integer} does not fit into 64 bits")))
    }

    fn visit_f64<E>(self, real: f64) -> Result<Value, E> {
        Ok(Value::Real(real))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("a parameter cannot be a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        let blob = "a blob is written {\"hex\": \"00ff\"}";
        let Hex { hex } = Hex::deserialize(MapAccessDeserializer::new(map))
            .map_err(|error| A::Error::custom(format_args!("{blob}: {error}")))?;
        hex::decode(hex).map(Value::Blob).map_err(|error| A::Error::custom(format_args!("{blob}: {error}")))
    }
}

/// The parameters of a statement, for `deserialize_with`.
pub(crate) fn parameters<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Parameter>, D::Error> {
    bounded(from, PARAMETERS, |number| format!("params, ?{}", number.saturating_add(1)))
}

/// Their values.
pub(crate) fn values(parameters: Vec<Parameter>) -> Vec<Value> {
    parameters.into_iter().map(|Parameter(value)| value).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Data, json};

    use super::*;

    fn parameter(json: &Data) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&json.to_string()).map(|Parameter(value)| value)
    }

    fn data(value: &Value) -> Data {
        serde_json::to_value(Cell(value)).unwrap()
    }

    #[test]
    fn values_go_to_the_database_and_back() {
        for value in
            [json!(null), json!(-1), json!(i64::MAX), json!(1.5), json!("text"), json!({"hex": "00ff"})]
        {
            assert_eq!(data(&parameter(&value).unwrap()), value);
        }
        assert_eq!(data(&parameter(&json!(true)).unwrap()), json!(1));
        assert_eq!(data(&Value::Real(f64::INFINITY)), json!("inf"));
        assert_eq!(data(&Value::Real(2.0)).to_string(), "2.0");
    }

    #[test]
    fn what_the_database_cannot_hold_is_refused() {
        for value in [
            json!(u64::MAX),
            json!([1]),
            json!({}),
            json!({"": 0}),
            json!({"hex": "0"}),
            json!({"hex": 0}),
            json!({"hex": "00", "x": 1}),
        ] {
            assert!(parameter(&value).is_err(), "{value}");
        }
        for value in [json!(1), json!([]), json!({}), json!({"hex": "00", "x": 1})] {
            assert!(serde_json::from_value::<Content>(value.clone()).is_err(), "{value}");
        }
        assert_eq!(serde_json::from_value::<Content>(json!("x")).unwrap(), Content::Text("x".to_owned()));
    }
}
