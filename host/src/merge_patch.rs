//! JSON merge patches (RFC 7396).

use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, Object, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

/// What a patch of an object may be: any of its properties, or null in the place of one. What is left out stays, so that none
/// has a default.
pub(crate) fn patch_of(whole: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut patch)) = whole else { return whole };
    patch.required.clear();
    patch.properties.values_mut().for_each(or_null);
    RefOr::T(Schema::Object(patch))
}

fn or_null(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            kind_or_null(&mut object.schema_type);
            object.default = None;
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
                or_null(values);
            }
        }
        RefOr::T(Schema::Array(array)) => {
            kind_or_null(&mut array.schema_type);
            array.default = None;
        }
        RefOr::T(Schema::OneOf(several)) => {
            several.default = None;
            several.items.push(Object::with_type(Type::Null).into());
        }
        other => {
            let null = Object::with_type(Type::Null);
            *other = OneOfBuilder::new().item(other.clone()).item(null).into();
        }
    }
}

fn kind_or_null(kind: &mut SchemaType) {
    match kind {
        SchemaType::Type(one) => *kind = SchemaType::from_iter([one.clone(), Type::Null]),
        SchemaType::Array(several) if !several.contains(&Type::Null) => several.push(Type::Null),
        SchemaType::Array(_) | SchemaType::AnyValue => {}
    }
}

/// Changes `target` as a patch says: null removes, objects are merged, anything else takes the place of what was there.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (name, change) in changes {
        match change {
            Value::Null => drop(fields.remove(name)),
            change if change.is_object() => {
                let field = fields.entry(name.clone()).or_insert_with(|| Value::Object(Default::default()));
                if !field.is_object() {
                    *field = Value::Object(Default::default());
                }
                merge(field, change);
            }
            change => drop(fields.insert(name.clone(), change.clone())),
        }
    }
}
