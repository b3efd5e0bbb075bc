//! From a compiled module to a component.

use anyhow::{Context, bail};
use wit_component::ComponentEncoder;

/// The start of a component; a core module has 1 in the last place but three.
const COMPONENT_MAGIC: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// The component of a module; what is a component already stays as it is. None of `machine_paths` may be in it.
pub(super) fn encode(module: &[u8], machine_paths: &[String]) -> anyhow::Result<Vec<u8>> {
    let component = if module.starts_with(&COMPONENT_MAGIC) {
        module.to_vec()
    } else {
        ComponentEncoder::default()
            .validate(true)
            .module(module)
            .context("cannot read the compiled module")?
            .encode()
            .context("cannot make a component of the compiled module")?
    };
    if let Some(path) = machine_paths.iter().find(|path| names(&component, path)) {
        bail!("the component names a path of this machine: {path}");
    }
    Ok(component)
}

/// Whether a file under this folder is named in these bytes. A folder `/src` is not what `…/alloc/src/fmt.rs` names, and
/// the root is everybody's.
fn names(bytes: &[u8], folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    let of_a_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    !folder.is_empty()
        && bytes.windows(folder.len() + 1).zip(0_usize..).any(|(window, at)| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            !before.is_some_and(of_a_path) && window.strip_prefix(folder.as_bytes()) == Some(b"/")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_machine_is_refused() {
        let mut component = COMPONENT_MAGIC.to_vec();
        component.extend(b"/somewhere/secret/lib.rs");
        assert!(encode(&component, &["/elsewhere".to_owned()]).is_ok());
        let error = encode(&component, &["/somewhere/secret".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "the component names a path of this machine: /somewhere/secret");
        for other in ["/secret", "/somewhere/sec", "/", ""] {
            assert!(encode(&component, &[other.to_owned()]).is_ok(), "{other}");
        }
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(encode(b"no wasm", &[]).is_err());
    }
}
