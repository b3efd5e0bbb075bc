//! Proxies with their credentials, and the master key.

use super::*;

#[test]
fn a_proxy_is_checked_with_its_credentials() {
    for (lines, problem) in [
        ("proxy = \"proxy:3128\"", "5: `proxy` in [[account]] must start with `http://` or `socks5://`"),
        (
            "proxy = \"http://u:secret@h:1\"",
            "5: `proxy` in [[account]] must not carry a user or password; use `proxy_user` and `proxy_password`",
        ),
        ("proxy = \"http://h\"", "5: `proxy` in [[account]] must name its port"),
        ("proxy_user = \"u\"", "5: `proxy_user` in [[account]] needs `proxy`"),
        (
            "proxy = \"http://h:1\"\nproxy_user = \"u\"",
            "6: `proxy_user` in [[account]] needs `proxy_password`",
        ),
        (
            "proxy = \"http://h:1\"\nproxy_password = \"secret\"",
            "6: `proxy_password` in [[account]] needs `proxy_user`",
        ),
        (
            "proxy_password_env = \"UNSET\"",
            "5: `proxy_password_env` in [[account]]: the variable `UNSET` is not set",
        ),
    ] {
        check(&format!("{ACCOUNT}{lines}"), &[problem]);
    }
}

#[test]
fn certificates_come_from_a_file_of_bounded_size() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tollgate.toml");
    let load = |ca: &str| {
        std::fs::write(&file, format!("{ACCOUNT}ca_file = \"{ca}\"")).unwrap();
        Config::load(&file).map_err(|error| error.to_string())
    };
    std::fs::write(directory.path().join("ca.pem"), "a certificate").unwrap();
    assert_eq!(load("ca.pem").unwrap().accounts[0].ca.as_deref(), Some("a certificate"));
    std::fs::write(directory.path().join("large"), vec![b'c'; limits::CA_MOST_BYTES as usize + 1]).unwrap();
    for wrong in ["none.pem", "/dev/zero", "large"] {
        let error = load(wrong).unwrap_err();
        assert!(error.starts_with("tollgate.toml:5: `ca_file` in [[account]]: cannot read"), "{error}");
    }
}

#[test]
fn the_master_key_comes_from_one_place() {
    let environment = |name: &str| match name {
        "KEY" => Some(format!(" {}\n", "0f".repeat(32))),
        "SHORT" => Some("0f".to_owned()),
        _ => None,
    };
    let parse = |text: &str| {
        let config = Config::parse(text, "tollgate.toml", &environment);
        config.map(|config| config.secrets).map_err(|error| error.to_string())
    };
    assert_eq!(parse(""), Ok(MasterKeySource::Beside));
    assert_eq!(parse("[secrets]\nkey_prompt = true"), Ok(MasterKeySource::Prompt));
    let given = MasterKeySource::Given {
        digits: Secret::new("0f".repeat(32)),
        origin: "the variable KEY".to_owned(),
    };
    assert!(!format!("{given:?}").contains("0f0f"));
    assert_eq!(parse("[secrets]\nkey_env = \"KEY\""), Ok(given));
    for (text, problem) in [
        ("key_env = \"NONE\"", "2: `key_env` in [secrets]: the variable `NONE` is not set"),
        (
            "key_env = \"SHORT\"",
            "2: `key_env` in [secrets]: `SHORT` must hold 64 hexadecimal digits, as of `openssl rand -hex 32`",
        ),
        (
            "key_file = \"f\"\nkey_prompt = true",
            "1: [secrets]: give one of `key_file`, `key_env` and `key_prompt`",
        ),
    ] {
        assert_eq!(parse(&format!("[secrets]\n{text}")), Err(format!("tollgate.toml:{problem}")));
    }
}
