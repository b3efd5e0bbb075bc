//! JSON merge patches (RFC 7396).

use serde_json::Value;

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
