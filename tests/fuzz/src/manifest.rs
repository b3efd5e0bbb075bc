//! The text of a `plugin.toml`.

use std::time::Duration;

use tollgate::plugin::{Instances, Manifest, SqlGrant, limits};

/// A manifest that is taken stays within the limits; one that is not is refused in words.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Manifest::parse(text) {
        Ok(manifest) => check_manifest(&manifest),
        Err(error) => assert!(!error.to_string().trim().is_empty()),
    }
}

fn check_manifest(manifest: &Manifest) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!((1..=limits::NAME_BYTES).contains(&manifest.name.len()) && manifest.name.bytes().all(plain));
    assert!((1..=limits::NAME_BYTES).contains(&manifest.version.len()));
    let tables = manifest.grants.sql.values().map(|grant| match grant {
        SqlGrant::Whole(_) => 1,
        SqlGrant::Tables(tables) => {
            assert!(!tables.is_empty());
            tables.len()
        }
    });
    let grants = &manifest.grants;
    let simple = [&grants.cache, &grants.kv, &grants.blob, &grants.vector].map(|named| named.len());
    assert!(simple.iter().sum::<usize>() + tables.sum::<usize>() <= limits::GRANTS);
    let asked = &manifest.limits;
    assert!((1..=limits::MEMORY_BYTES_MAX).contains(&asked.memory_bytes));
    assert!((asked.memory_bytes..=limits::TOTAL_MEMORY_BYTES_MAX).contains(&asked.total_memory_bytes));
    if let Instances::Warm(instances) = asked.instances {
        assert!((1..=limits::INSTANCES_MAX).contains(&instances));
    }
    for deadline in [
        asked.admit_deadline,
        asked.settle_deadline,
        asked.ingest_deadline,
        asked.init_deadline,
        asked.job_deadline,
    ] {
        assert!((Duration::from_millis(1)..=limits::DEADLINE_MAX).contains(&deadline));
    }
}
