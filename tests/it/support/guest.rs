//! Guests for tests, written by hand in WebAssembly's text form: what they do wrong no compiler would.

use std::fmt::Write;

use super::component::of_text;

/// A guest with the admission hook. What is not set does as a good guest does.
#[derive(Default)]
pub struct Guest {
    world: String,
    imports: String,
    definitions: String,
    admit: Option<String>,
    settle: Option<String>,
}

/// Admits every subject; for the end of an `admit`.
pub const ALLOW: &str = "(call $allow (local.get 15))";

/// Settles; for the end of a `settle`, an `init` or an `ingest`.
pub const DONE: &str = "(call $done)";

/// Memory of four pages, whose first 4 KiB are the guest's own, and a ring of an allocator behind them. Results lie at 512
/// (`admit`), 544 (the others); decisions at 1024, of 72 bytes each: allowed, the first 16
/// with an empty ticket, so that they are settled.
const BASE: &str = r#"
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 4096))
    (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (if (i32.gt_u (i32.add (global.get $top) (local.get 3)) (i32.const 200000))
            (then (global.set $top (i32.const 4096))))
        (local.set $at (global.get $top))
        (global.set $top
            (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 7)) (i32.const -8)))
        (local.get $at))
    (func $allow (param $decisions i32) (result i32)
        (local $each i32)
        (block $done (loop $next
            (br_if $done (i32.or
                (i32.ge_u (local.get $each) (local.get $decisions)) (i32.ge_u (local.get $each) (i32.const 16))))
            (i32.store8 offset=1032 (i32.mul (local.get $each) (i32.const 72)) (i32.const 1))
            (local.set $each (i32.add (local.get $each) (i32.const 1)))
            (br $next)))
        (i32.store8 (i32.const 512) (i32.const 0))
        (i32.store (i32.const 516) (i32.const 1024))
        (i32.store (i32.const 520) (local.get $decisions))
        i32.const 512)
    (func $done (result i32) (i32.store8 (i32.const 544) (i32.const 0)) i32.const 544)
    (func $failed (param $at i32) (param $length i32) (result i32)
        (i32.store8 (i32.const 544) (i32.const 1))
        (i32.store (i32.const 548) (local.get $at))
        (i32.store (i32.const 552) (local.get $length))
        i32.const 544)"#;

/// The kv functions that tests use, `$store` as what they open it by, and the answer of each at 800.
const KV: &str = r#"
    (import "tollgate:storage/kv@0.1.0" "[static]store.open" (func $open (param i32 i32 i32)))
    (import "tollgate:storage/kv@0.1.0" "[method]store.get" (func $get (param i32 i32 i32 i32)))
    (import "tollgate:storage/kv@0.1.0" "[method]store.get-many" (func $get_many (param i32 i32 i32 i32)))
    (import "tollgate:storage/kv@0.1.0" "[method]store.set"
        (func $set (param i32 i32 i32 i32 i32 i32 i64 i32 i32)))"#;

/// The blob functions that tests use.
const BLOB: &str = r#"
    (import "tollgate:storage/blob@0.1.0" "[static]container.open" (func $open_container (param i32 i32 i32)))
    (import "tollgate:storage/blob@0.1.0" "[method]container.write" (func $write_object (param i32 i32)))
    (import "tollgate:storage/blob@0.1.0" "[method]container.read"
        (func $read_object (param i32 i32 i32 i32 i32 i64 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "tollgate:storage/blob@0.1.0" "[method]writer.write" (func $write_piece (param i32 i32 i32 i32)))
    (import "tollgate:storage/blob@0.1.0" "[method]writer.finish" (func $finish (param i32 i32)))
    (import "tollgate:storage/blob@0.1.0" "[method]reader.read" (func $read_piece (param i32 i32 i32)))"#;

/// The vector functions that tests use.
const VECTOR: &str = r#"
    (import "tollgate:storage/vector@0.1.0" "[static]index.open" (func $open_index (param i32 i32 i32)))
    (import "tollgate:storage/vector@0.1.0" "[method]index.upsert" (func $upsert (param i32 i32 i32 i32)))
    (import "tollgate:storage/vector@0.1.0" "[method]index.query"
        (func $query (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// The SQL functions that tests use.
const SQL: &str = r#"
    (import "tollgate:storage/sql@0.1.0" "[static]database.open" (func $open_database (param i32 i32 i32)))
    (import "tollgate:storage/sql@0.1.0" "[method]database.query"
        (func $query_database (param i32 i32 i32 i32 i32 i32)))
    (import "tollgate:storage/sql@0.1.0" "[method]database.execute"
        (func $execute_database (param i32 i32 i32 i32 i32 i32)))"#;

/// `$is_bad` of the place of an answer and that of its error says whether it is one, and notes its case in `$case`. `$ran` and
/// `$refused` end a job with a number and with the case.
pub const JOB_ENDS: &str = r#"
    (global $case (mut i32) (i32.const -1))
    (func $is_bad (param $at i32) (param $error i32) (result i32)
        (if (i32.load8_u (local.get $at)) (then
            (global.set $case (i32.load8_u (local.get $error)))
            (return (i32.const 1))))
        (i32.const 0))
    (func $ran (param $changed i32) (result i32)
        (i32.store8 (i32.const 1704) (i32.const 0))
        (i64.store (i32.const 1712) (i64.extend_i32_u (local.get $changed)))
        (i32.store (i32.const 1720) (i32.const 700)) (i32.store (i32.const 1724) (i32.const 1))
        (i32.const 1704))
    (func $refused (result i32)
        (i32.store8 (i32.const 1760) (i32.add (i32.const 48) (global.get $case)))
        (i32.store8 (i32.const 1704) (i32.const 1))
        (i32.store (i32.const 1712) (i32.const 1760)) (i32.store (i32.const 1716) (i32.const 1))
        (i32.const 1704))"#;

/// The cache functions that tests use, `$cache` as what they open it by, and the answer of each at 800.
const CACHE: &str = r#"
    (import "tollgate:storage/cache@0.1.0" "[static]cache.open" (func $cache_open (param i32 i32 i32)))
    (import "tollgate:storage/cache@0.1.0" "[method]cache.get" (func $cache_get (param i32 i32 i32 i32)))
    (import "tollgate:storage/cache@0.1.0" "[method]cache.set"
        (func $cache_set (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32)))
    (import "tollgate:storage/cache@0.1.0" "[method]cache.stats" (func $cache_stats (param i32 i32)))"#;

impl Guest {
    /// Allows everything and settles it.
    pub fn new() -> Guest {
        Guest::default()
    }

    /// The body of `admit`: parameter 15 is the number of subjects; [`ALLOW`] is a good end.
    pub fn admit(mut self, body: &str) -> Guest {
        self.admit = Some(body.to_owned());
        self
    }

    /// The body of `settle`; [`DONE`] is a good end.
    pub fn settle(mut self, body: &str) -> Guest {
        self.settle = Some(body.to_owned());
        self
    }

    /// Adds the lifecycle hook with this body of `init`.
    pub fn init(self, body: &str) -> Guest {
        let hook = format!("(func (export \"tollgate:policy/lifecycle@0.1.0#init\") (result i32) {body})");
        self.exports("tollgate:policy/lifecycle@0.1.0").define(&hook)
    }

    /// Adds the jobs hook with one job, `work`, once an hour, with this body of `run`. Its parameters are the name's address
    /// and length, the time and the deadline.
    pub fn job(self, body: &str) -> Guest {
        // One job of 32 bytes at 3072: name, and a timing of case 0 with its milliseconds.
        let hook = format!(
            r#"(data (i32.const 600) "work")
            (func (export "tollgate:policy/jobs@0.1.0#schedule") (result i32)
                (i32.store (i32.const 3072) (i32.const 600)) (i32.store (i32.const 3076) (i32.const 4))
                (i32.store8 (i32.const 3080) (i32.const 0)) (i64.store (i32.const 3088) (i64.const 3600000))
                (i32.store (i32.const 560) (i32.const 3072)) (i32.store (i32.const 564) (i32.const 1))
                i32.const 560)
            (func (export "tollgate:policy/jobs@0.1.0#run") (param i32 i32 i64 i64) (result i32) {body})"#
        );
        self.exports("tollgate:policy/jobs@0.1.0").define(&hook)
    }

    /// Imports kv and opens the store `name` at its first use; `$store` is its handle, or -1 with the error's case at 804.
    pub fn kv(mut self, name: &str) -> Guest {
        self.world.push_str("import tollgate:storage/kv@0.1.0;\n");
        self.imports.push_str(KV);
        let length = name.len();
        self.define(&format!(
            r#"(data (i32.const 640) "{name}")
            (global $handle (mut i32) (i32.const -1))
            (func $store (result i32)
                (if (i32.eq (global.get $handle) (i32.const -1)) (then
                    (call $open (i32.const 640) (i32.const {length}) (i32.const 800))
                    (if (i32.eqz (i32.load8_u (i32.const 800))) (then
                        (global.set $handle (i32.load (i32.const 804)))))))
                (global.get $handle))"#
        ))
    }

    /// Imports blob. `$container` opens the container `name`, `$writer` and `$reader` the object `k` in it, in whole and
    /// without options: a handle, or -1 with the error's case in `$case`. [`JOB_ENDS`] are there too.
    pub fn blob(mut self, name: &str) -> Guest {
        self.world.push_str("import tollgate:storage/blob@0.1.0;\n");
        self.imports.push_str(BLOB);
        let length = name.len();
        self.define(JOB_ENDS).define(&format!(
            r#"(data (i32.const 640) "{name}") (data (i32.const 700) "k")
            (func $container (result i32)
                (call $open_container (i32.const 640) (i32.const {length}) (i32.const 1600))
                (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (i32.const -1))))
                (i32.load (i32.const 1604)))
            (func $writer (param $container i32) (result i32)
                (i32.store (i32.const 2048) (local.get $container))
                (i32.store (i32.const 2052) (i32.const 700)) (i32.store (i32.const 2056) (i32.const 1))
                (call $write_object (i32.const 2048) (i32.const 1600))
                (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (i32.const -1))))
                (i32.load (i32.const 1604)))
            (func $reader (param $container i32) (result i32)
                (call $read_object (local.get $container) (i32.const 700) (i32.const 1)
                    (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1600))
                (if (call $is_bad (i32.const 1600) (i32.const 1608)) (then (return (i32.const -1))))
                (i32.load (i32.const 1616)))
"#
        ))
    }

    /// Imports vector. `$index` opens the index `name`: a handle, or -1 with the error's case in `$case`. `$vector` of a number
    /// and two values puts a vector with that digit as its id behind the others of the list at 2048, in namespace `k` and with
    /// metadata `{"kind":"k"}`. [`JOB_ENDS`] are there too.
    pub fn vector(mut self, name: &str) -> Guest {
        self.world.push_str("import tollgate:storage/vector@0.1.0;\n");
        self.imports.push_str(VECTOR);
        let length = name.len();
        self.define(JOB_ENDS).define(&format!(
            r#"(data (i32.const 640) "{name}") (data (i32.const 700) "k") (data (i32.const 710) "{{\22kind\22:\22k\22}}")
            (data (i32.const 730) "0123456789")
            (func $index (result i32)
                (call $open_index (i32.const 640) (i32.const {length}) (i32.const 1600))
                (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (i32.const -1))))
                (i32.load (i32.const 1604)))
            (func $vector (param $number i32) (param $x f32) (param $y f32)
                (local $at i32) (local $values i32)
                (local.set $at (i32.add (i32.const 2048) (i32.mul (local.get $number) (i32.const 40))))
                (local.set $values (i32.add (i32.const 2900) (i32.mul (local.get $number) (i32.const 8))))
                (f32.store (local.get $values) (local.get $x))
                (f32.store offset=4 (local.get $values) (local.get $y))
                (i32.store (local.get $at) (i32.add (i32.const 730) (local.get $number)))
                (i32.store offset=4 (local.get $at) (i32.const 1))
                (i32.store offset=8 (local.get $at) (local.get $values))
                (i32.store offset=12 (local.get $at) (i32.const 2))
                (i32.store offset=16 (local.get $at) (i32.const 1))
                (i32.store offset=20 (local.get $at) (i32.const 700))
                (i32.store offset=24 (local.get $at) (i32.const 1))
                (i32.store offset=28 (local.get $at) (i32.const 1))
                (i32.store offset=32 (local.get $at) (i32.const 710))
                (i32.store offset=36 (local.get $at) (i32.const 12)))"#
        ))
    }

    /// Imports SQL. `$statement` runs this statement of the database `name` by `query` or `execute`, without parameters: whether
    /// it failed, with the error's case in `$case`. `$number` is the first value of its answer, a number. [`JOB_ENDS`] are there
    /// too.
    pub fn sql(mut self, name: &str, function: &str, statement: &str) -> Guest {
        self.world.push_str("import tollgate:storage/sql@0.1.0;\n");
        self.imports.push_str(SQL);
        let (name_length, length) = (name.len(), statement.len());
        self.define(JOB_ENDS).define(&format!(
            r#"(data (i32.const 680) "{name}") (data (i32.const 700) "k") (data (i32.const 2048) "{statement}")
            (global $database (mut i32) (i32.const -1))
            (func $statement (result i32)
                (if (i32.eq (global.get $database) (i32.const -1)) (then
                    (call $open_database (i32.const 680) (i32.const {name_length}) (i32.const 1600))
                    (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (i32.const 1))))
                    (global.set $database (i32.load (i32.const 1604)))))
                (call ${function}_database (global.get $database) (i32.const 2048) (i32.const {length})
                    (i32.const 0) (i32.const 0) (i32.const 1600))
                (call $is_bad (i32.const 1600) (i32.const 1608)))
            (func $number (result i32) (i32.load offset=8 (i32.load (i32.load (i32.const 1616)))))"#
        ))
    }

    /// Imports caches and opens the cache `name` at its first use; `$cache` is its handle, or -1 with the error's case at 804.
    pub fn cache(mut self, name: &str) -> Guest {
        self.world.push_str("import tollgate:storage/cache@0.1.0;\n");
        self.imports.push_str(CACHE);
        let length = name.len();
        self.define(&format!(
            r#"(data (i32.const 660) "{name}")
            (global $cache_handle (mut i32) (i32.const -1))
            (func $cache (result i32)
                (if (i32.eq (global.get $cache_handle) (i32.const -1)) (then
                    (call $cache_open (i32.const 660) (i32.const {length}) (i32.const 800))
                    (if (i32.eqz (i32.load8_u (i32.const 800))) (then
                        (global.set $cache_handle (i32.load (i32.const 804)))))))
                (global.get $cache_handle))"#
        ))
    }

    /// Imports stdout, as far as `$print` of an address and a length needs it.
    pub fn stdout(mut self) -> Guest {
        self.world.push_str("import wasi:cli/stdout@0.2.0;\n");
        self.imports.push_str(
            r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
            (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))"#,
        );
        self.define(
            r#"(global $stream (mut i32) (i32.const -1))
            (func $print (param $at i32) (param $length i32)
                (if (i32.eq (global.get $stream) (i32.const -1)) (then (global.set $stream (call $stdout))))
                (call $write (global.get $stream) (local.get $at) (local.get $length) (i32.const 900)))"#,
        )
    }

    /// Imports a clock: `$sleep` waits for so many nanoseconds.
    pub fn clock(mut self) -> Guest {
        self.world.push_str("import wasi:io/poll@0.2.0;\nimport wasi:clocks/monotonic-clock@0.2.0;\n");
        self.imports.push_str(
            r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $in (param i64) (result i32)))
            (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
            (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))"#,
        );
        self.define(
            r#"(func $sleep (param $nanoseconds i64) (local $pollable i32)
                (local.set $pollable (call $in (local.get $nanoseconds)))
                (call $block (local.get $pollable))
                (call $drop_pollable (local.get $pollable)))"#,
        )
    }

    /// Further functions, globals and data. Tests may use the memory from 1,536 to 3,072, which starts as zeros.
    pub fn define(mut self, definitions: &str) -> Guest {
        self.definitions.push_str(definitions);
        self
    }

    fn exports(mut self, interface: &str) -> Guest {
        writeln!(self.world, "export {interface};").unwrap();
        self
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        let Guest { world, imports, definitions, admit, settle } = self;
        let (admit, settle) = (admit.as_deref().unwrap_or(ALLOW), settle.as_deref().unwrap_or(DONE));
        let module = format!(
            r#"(module {imports} {BASE} {definitions}
                (func (export "tollgate:policy/admission@0.1.0#admit")
                    (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i32 i32 i32) (result i32) {admit})
                (func (export "tollgate:policy/admission@0.1.0#settle") (param i32 i32) (result i32) {settle}))"#
        );
        of_text(&module, &format!("{world}export tollgate:policy/admission@0.1.0;"))
    }
}
