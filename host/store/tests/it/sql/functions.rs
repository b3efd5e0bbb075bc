//! The functions that the store has in the place of SQLite's answer what those do.

use tollgate_store::{Statement, Value};

use super::{
    differential::compare,
    engines::{Engine, Native, Ours},
};

/// What has been seen to matter: types, empty ones, NULs, characters of all lengths, and bytes that are no UTF-8.
fn awkward() -> Vec<Value> {
    let texts =
        ["", "a", "aa", "aba", "ab", "ä", "äa", "aä€", "€", "\u{1f600}a", "\0", "a\0b", " a ", "4a-4B", "1"];
    let blobs: [&[u8]; 14] = [
        b"",
        b"a",
        b"\xc3",
        b"\xa4",
        b"\xc3\xa4",
        b"\xa4\xa4a",
        b"a\xff\x80\x80",
        b"\xc0a",
        b"a\xc3\xa4\xa4\xa4",
        b"\xe2\x82\xac\x80",
        b"\0a",
        b"4\xa44",
        b"\xf5\x80\x80\x80\x80\x80",
        b"\xed\xa0\x80",
    ];
    let numbers = [Value::Integer(0), 1.into(), (-12).into(), i64::MIN.into()];
    let reals = [0.1, -0.0, 1e300, 1.0, 123_456_789.123_456_78, f64::INFINITY].map(Value::Real);
    let plain = [Value::Null].into_iter().chain(numbers).chain(reals);
    plain.chain(texts.map(Value::from)).chain(blobs.map(|blob| Value::Blob(blob.to_vec()))).collect()
}

/// Short mixtures of bytes that mean something to one of the functions.
fn mixtures(count: usize) -> Vec<Value> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % limit
    };
    let bytes = b"ab41-\0\x80\xa4\xc3\xe2\x82\xac\xf0\xff";
    let mut mixture = || (0..below(9)).map(|_| bytes[below(bytes.len())]).collect::<Vec<u8>>();
    (0..count).map(|_| Value::Blob(mixture())).collect()
}

/// Both engines, with these values in table `v`, those that are blobs also as text.
fn with_values(values: Vec<Value>) -> (Ours, Native) {
    let (mut ours, mut native) = (Ours::new(), Native::new());
    let mut both = |call: &[Statement]| compare(&mut ours, &mut native, call, "setup").unwrap();
    both(&["CREATE TABLE v (n INTEGER PRIMARY KEY, x)".into()]);
    both(
        &values
            .into_iter()
            .map(|value| Statement::new("INSERT INTO v (x) VALUES (?1)", vec![value]))
            .collect::<Vec<_>>(),
    );
    both(&["INSERT INTO v (x) SELECT CAST(x AS TEXT) FROM v WHERE typeof(x) = 'blob'".into()]);
    (ours, native)
}

const OF_TWO: &str = "instr(a.x, b.x), trim(a.x, b.x), ltrim(a.x, b.x), rtrim(a.x, b.x), unhex(a.x, b.x)";

fn check((mut ours, mut native): (Ours, Native), sql: &str) {
    let outcomes = compare(&mut ours, &mut native, &[sql.into()], "").unwrap();
    assert!(outcomes[0].rows.len() > 100, "{sql}");
}

#[test]
fn functions_of_two_awkward_values_do_what_they_do_in_native_sqlite() {
    check(with_values(awkward()), &format!("SELECT a.n, b.n, {OF_TWO} FROM v a, v b ORDER BY 1, 2"));
    check(with_values(mixtures(100)), &format!("SELECT a.n, b.n, {OF_TWO} FROM v a, v b ORDER BY 1, 2"));
    let types =
        OF_TWO.split("), ").map(|call| format!("typeof({})", call.trim_end_matches(')').to_owned() + ")"));
    let types = types.collect::<Vec<_>>().join(", ");
    check(with_values(awkward()), &format!("SELECT a.n, b.n, {types} FROM v a, v b ORDER BY 1, 2"));
}

#[test]
fn replacing_awkward_values_does_what_it_does_in_native_sqlite() {
    let sql = "SELECT a.n, b.n, c.n, replace(a.x, b.x, c.x), typeof(replace(a.x, b.x, c.x))
        FROM v a, v b, v c WHERE c.n IN (1, 2, 7, 12, 17, 25, 30) ORDER BY 1, 2, 3";
    check(with_values(awkward()), sql);
    check(with_values(mixtures(40)), sql);
}

#[test]
fn patching_json_does_what_it_does_in_native_sqlite() {
    let (mut ours, mut native) = (Ours::new(), Native::new());
    let texts = [
        "{}",
        "{\"a\":1,\"b\":{\"c\":[1,2]}}",
        "{a:null,'b':{c:null,d:0x10}}",
        "[1]",
        "7",
        "\"t\"",
        "null",
        "{\"a\":1",
        "",
        "1e400",
    ];
    let values = texts.map(Value::from).into_iter().chain([
        Value::Null,
        5.into(),
        0.5.into(),
        Value::Blob(vec![0xff]),
    ]);
    let values: Vec<_> = values.collect();
    for target in &values {
        for patch in &values {
            for sql in [
                "SELECT json_patch(?1, ?2), jsonb_patch(?1, ?2)",
                "SELECT json_object('patched', json_patch(?1, jsonb(?2))), json_array(jsonb_patch(jsonb(?1), ?2))",
                "SELECT typeof(json_patch(?1, ?2)), json_quote(json_patch(?1, ?2))",
            ] {
                let call = Statement::new(sql, vec![target.clone(), patch.clone()]);
                let _ = compare(&mut ours, &mut native, &[call], "patch");
            }
        }
    }
}

#[test]
fn results_that_grow_too_large_are_refused() {
    let mut ours = Ours::new();
    let grown = |count: usize| {
        let text = Value::Text("a".repeat(1_000_000));
        Statement::new("SELECT length(replace(?1, 'a', ?2))", vec![text, Value::Text("b".repeat(count))])
    };
    assert_eq!(ours.run(&[grown(16)]).unwrap()[0].rows, [[Value::Integer(16_000_000)]]);
    assert!(ours.run(&[grown(17)]).unwrap_err().text.contains("16777216 bytes"));
    let mut native = Native::new();
    assert!(native.run(&[grown(17)]).is_ok());
}

/// Such places take SQLite's own functions only, and ours as its own.
#[test]
fn indexes_checks_columns_views_and_triggers_take_them() {
    let (mut ours, mut native) = (Ours::new(), Native::new());
    for sql in [
        "CREATE TABLE t (a TEXT CHECK (instr(a, 'x') = 0), b AS (replace(a, 'b', 'c')) STORED, c AS (trim(a, '-')))",
        "CREATE UNIQUE INDEX i ON t (rtrim(a, '/'))",
        "CREATE INDEX j ON t (json_patch('{\"k\":1}', json_quote(c))) WHERE unhex(a, '-') IS NOT NULL",
        "CREATE VIEW w AS SELECT ltrim(a, '-') AS l FROM t WHERE instr(a, 'b')",
        "CREATE TABLE log (what)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES (replace(new.a, '-', '+')); END",
        "INSERT INTO t VALUES ('-1'), ('b/'), ('--bb')",
        "INSERT INTO t VALUES ('b')",
        "INSERT INTO t VALUES ('x')",
        "SELECT a FROM t WHERE rtrim(a, '/') = 'b'",
        "SELECT a, b, c FROM t ORDER BY a",
        "SELECT l FROM w ORDER BY l",
        "SELECT what FROM log",
        "PRAGMA integrity_check",
    ] {
        let _ = compare(&mut ours, &mut native, &[sql.into()], sql);
    }
    let read = ours.run(&["SELECT count(*), (SELECT count(*) FROM w) FROM t".into()]).unwrap();
    assert_eq!(read[0].rows, [[Value::Integer(3), Value::Integer(2)]]);
}
