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
    if let Some(path) = machine_paths.iter().find(|path| contains(&component, path.as_bytes())) {
        bail!("the component names a path of this machine: {path}");
    }
    Ok(component)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
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
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(encode(b"no wasm", &[]).is_err());
    }
}
