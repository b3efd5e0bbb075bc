//! Which names a plugin's project can have.

use anyhow::bail;

use super::vendored;
use crate::plugin::limits;

/// Names that cargo or the compiler keeps for itself.
const RESERVED: [&str; 6] = ["alloc", "core", "proc-macro", "std", "test", "vendor"];

/// Whether a name can be a plugin's and a cargo package's too; the error says what can.
pub(super) fn check(name: &str) -> anyhow::Result<()> {
    let named = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !named || !starts_well || name.len() > limits::NAME_BYTES {
        bail!(
            "{name:?} cannot be a plugin's name: 1 to {} of a-z, 0-9 and '-' are allowed, a letter first",
            limits::NAME_BYTES
        );
    }
    if RESERVED.contains(&name) || vendored::is_dependency(name)? {
        bail!("{name:?} is the name of something that a plugin is built with; take another one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_fit_everywhere_it_is_written() {
        for good in ["a", "hello", "block-models-2"] {
            check(good).unwrap();
        }
        let long = "a".repeat(limits::NAME_BYTES + 1);
        for bad in ["", "Hello", "2fast", "-x", "../up", "a/b", "a b", "größe", &long] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains("a letter first"), "{error}");
        }
        for taken in ["test", "tollgate-guest", "wit-bindgen"] {
            let error = check(taken).unwrap_err().to_string();
            assert!(error.contains("take another one"), "{error}");
        }
    }
}
