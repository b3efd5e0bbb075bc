use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use super::args::{Arguments, Command, KvCommand};
use super::client::{Client, segment};
use super::failure::Failure;
use super::keys::KeyCommand;
use super::output::field;
use super::plugin::PluginCommand;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_documented_line_is_understood() {
    for line in [
        "tollgate serve",
        "tollgate serve --config tollgate.toml --data DIR --listen 127.0.0.1:0",
        "tollgate --data DIR serve --log-format json",
        "tollgate key create --name N --rpm 1 --tpm 2 --rpd 3 --models a,b",
        "tollgate key list --json --server http://h:1 --token T",
        "tollgate --server http://h:1 --token T key list",
        "tollgate key revoke NAME",
        "tollgate key create --name N --expires 12h --permissions openai --clients other --cost-per-day 0.5",
        "tollgate key create --name N --limit gpt-4*:rpm=1 --limit a:b:cost-total=2",
        "tollgate key show NAME",
        "tollgate key update NAME --concurrency 4 --limit gpt-4*:none --clear rpm,expires,cost-per-day",
        "tollgate key usage NAME --models",
        "tollgate key usage NAME --json",
        "tollgate account usage NAME",
        "tollgate key rotate NAME --overlap 0s",
        "tollgate blacklist add --account N --reason R --ttl 1h",
        "tollgate blacklist add --file F",
        "tollgate blacklist list --prefix client: --json",
        "tollgate key delete NAME --records --yes",
        "tollgate key enable NAME",
        "tollgate key disable NAME",
        "tollgate account create --name N --base-url https://h --no-api-key",
        "tollgate account create --name N --base-url https://h --api-key-env V --models a,b --rpm 1 --expires 30",
        "tollgate account create --name N --base-url https://h --no-api-key --proxy http://h:1 --proxy-user u --proxy-password-env V",
        "tollgate reload",
        "tollgate audit list",
        "tollgate audit list --action sql --before 7 --limit 10 --json",
        "tollgate account list --json",
        "tollgate account show N --json",
        "tollgate account update N --api-key-stdin --clear rpm,models,stream-usage --ca-file F",
        "tollgate account update N --stream-usage",
        "tollgate account update N --limit m*:cost-per-day=2 --limit o:none --clear cost-total,models",
        "tollgate account enable N",
        "tollgate account disable N",
        "tollgate account delete N",
        "tollgate secrets rotate --keep-master-key",
        "tollgate secrets rotate --new-master-key-env V",
        "tollgate token create --name N --kv a:read --kv b:read-write --blob c:read --sql d:read:e,f --vector g:read --prefix p --expires 30d",
        "tollgate token list --json",
        "tollgate token revoke NAME",
        "tollgate openapi",
        "tollgate plugin new NAME --hook ingestion --lang rust",
        "tollgate plugin build",
        "tollgate plugin build quota blacklist",
        "tollgate plugin check FILE.wasm --manifest F --rounds 5 --seed 7",
        "tollgate plugin export DIR --to worker",
        "tollgate plugin export DIR --to node FILE.wasm quota --manifest F",
        "tollgate plugin watch",
        "tollgate plugin inspect",
        "tollgate plugin logs NAME --follow",
        "tollgate plugin inspect NAME --json",
        "tollgate plugin test",
        "tollgate plugin test FOLDER --cases DIR --only PART",
        "tollgate plugin bench --only PART --seconds 10 --json",
        "tollgate plugin check",
        "tollgate plugin push",
        "tollgate plugin push FILE.wasm --name N --manifest F",
        "tollgate plugin list",
        "tollgate plugin list --versions",
        "tollgate plugin keygen release.key",
        "tollgate plugin sign --key release.key",
        "tollgate plugin push FILE.wasm --canary 0.5% --for 10m",
        "tollgate plugin promote NAME",
        "tollgate plugin push FILE.wasm --manifest F --grant",
        "tollgate plugin set NAME key=value other= --unset third",
        "tollgate plugin rollback NAME --to DIGEST",
        "tollgate sql DB SELECT --json",
        "tollgate sql -- import SELECT",
        "tollgate sql DB",
        "tollgate sql import DB FILE --replace",
        "tollgate sql export DB FILE",
        "tollgate kv get STORE KEY",
        "tollgate kv set STORE KEY VALUE --ttl-ms 5",
        "tollgate kv delete STORE KEY",
        "tollgate kv list STORE --prefix p --limit 5",
        "tollgate store stats KIND/NAME --json",
        "tollgate store check KIND/NAME --json",
        "tollgate store compact --data DIR --json",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_is_not_a_command_is_wrong_usage() {
    for line in [
        "tollgate",
        "tollgate frobnicate",
        "tollgate key",
        "tollgate key create",
        "tollgate key create --name N --rpm 0",
        "tollgate key create --name N --rpm -1",
        "tollgate key create --name N --tpm many",
        "tollgate token create",
        "tollgate token create --name N --kv a",
        "tollgate token create --name N --kv a:write",
        "tollgate token create --name N --expires soon",
        "tollgate key create --name N --cost-per-day 0",
        "tollgate key create --name N --expires soon",
        "tollgate key create --name N --limit rpm=1",
        "tollgate key create --name N --limit m:rpn=1",
        "tollgate key update N --clear name",
        "tollgate key rotate N --overlap -1",
        "tollgate serve --listen localhost",
        "tollgate account create --name N",
        "tollgate account create --name N --base-url https://h --api-key KEY",
        "tollgate account create --name N --base-url https://h --api-key-env V --no-api-key",
        "tollgate account create --name N --base-url https://h --no-api-key --limit rpm=1",
        "tollgate key delete NAME",
        "tollgate blacklist add --file F --reason R",
        "tollgate blacklist add --account N",
        "tollgate blacklist add --reason R",
        "tollgate audit list --limit 0",
        "tollgate secrets rotate --keep-master-key --new-master-key-stdin",
        "tollgate plugin new",
        "tollgate plugin new NAME --hook settle",
        "tollgate plugin push --name N",
        "tollgate plugin push FILE.wasm --canary 51%",
        "tollgate plugin push FILE.wasm --for 10m",
        "tollgate plugin set NAME",
        "tollgate plugin set NAME =value",
        "tollgate sql",
        "tollgate sql import DB",
        "tollgate sql export DB FILE --json",
        "tollgate kv get STORE",
        "tollgate kv set STORE KEY",
        "tollgate kv list STORE --limit 0",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn arguments_arrive() {
    let Command::Key(KeyCommand::Create(key)) =
        parse("tollgate key create --name n --rpm 60 --models a,b").unwrap().command
    else {
        panic!("not key create")
    };
    assert_eq!(key.name, "n");
    let expected = serde_json::json!({ "limits": { "rpm": 60 }, "models": ["a", "b"] });
    assert_eq!(serde_json::Value::Object(key.settings.patch()), expected);
    let Command::Plugin(PluginCommand::Rollback { name, to }) =
        parse("tollgate plugin rollback quota --to 3f").unwrap().command
    else {
        panic!("not rollback")
    };
    assert_eq!((name.as_str(), to.as_deref()), ("quota", Some("3f")));
    let Command::Kv(KvCommand::List { store, prefix, limit }) =
        parse("tollgate kv list quota --prefix client: --limit 7").unwrap().command
    else {
        panic!("not kv list")
    };
    assert_eq!((store.as_str(), prefix.as_deref(), limit), ("quota", Some("client:"), Some(7)));
}

#[test]
fn help_of_every_command_has_an_example() {
    fn check(command: &clap::Command) {
        if command.get_name() != "help" && !command.has_subcommands() && !command.is_hide_set() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Arguments::command());
}

#[test]
fn a_server_needs_a_url_and_a_token() {
    for (line, message) in [
        ("tollgate --server h:1 --token t key list", "--server must be a URL such as http://127.0.0.1:8080"),
        ("tollgate --server http://h:1 key list", "--server needs the admin token"),
    ] {
        let mut connection = parse(line).unwrap().connection;
        if !line.contains("--token") {
            connection.token = None;
        }
        let failure = Client::new(connection).err().unwrap();
        assert!(matches!(failure, Failure::Usage(_)));
        assert!(failure.message().starts_with(message), "{}", failure.message());
    }
}

#[test]
fn fields_can_be_told_apart_after_escaping() {
    for (value, text) in [
        (json!(null), "\\N"),
        (json!("NULL"), "NULL"),
        (json!("\\N"), "\\\\N"),
        (json!(""), ""),
        (json!("a\tb\nc\rd\\"), "a\\tb\\nc\\rd\\\\"),
        (json!({"hex": "00ff"}), "\\x00ff"),
        (json!("\\x00ff"), "\\\\x00ff"),
        (json!(-1), "-1"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!(["a", "b"]), "a,b"),
    ] {
        assert_eq!(field(&value), text);
    }
}

#[test]
fn segments_keep_their_meaning_in_a_path() {
    assert_eq!(segment("client:ab/c d?é"), "client%3Aab%2Fc%20d%3F%C3%A9");
    assert_eq!(segment("plain-_.~09"), "plain-_.~09");
}
