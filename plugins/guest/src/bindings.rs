//! The one place with generated bindings: a world of all stores, and one world for each hook.
//!
//! Imports that a plugin does not call are left out of its component, and a hook's exports come in only with its
//! `export!`, so every plugin shares these worlds.

pub mod stores {
    wit_bindgen::generate!({
        path: ["../../wit/storage"],
        inline: "package tollgate:guest;
            world stores {
                import tollgate:storage/blob@0.1.0;
                import tollgate:storage/cache@0.1.0;
                import tollgate:storage/kv@0.1.0;
                import tollgate:storage/sql@0.1.0;
                import tollgate:storage/vector@0.1.0;
            }",
        additional_derives: [PartialEq, Clone],
        additional_derives_ignore: ["cache", "store", "database", "container", "reader", "writer", "opened", "index"],
        generate_all,
    });
}

/// As much of WASI as a line of log needs.
pub mod output {
    wit_bindgen::generate!({
        inline: "package tollgate:guest;
            world output { import wasi:cli/stdout@0.2.0; }
            package wasi:io@0.2.0 {
                interface error { resource error; }
                interface streams {
                    use error.{error};
                    variant stream-error { last-operation-failed(error), closed }
                    resource output-stream {
                        blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                    }
                }
            }
            package wasi:cli@0.2.0 {
                interface stdout {
                    use wasi:io/streams@0.2.0.{output-stream};
                    get-stdout: func() -> output-stream;
                }
            }",
        generate_all,
    });
}

macro_rules! hook {
    ($name:ident, $world:literal, $module:literal) => {
        pub mod $name {
            wit_bindgen::generate!({
                path: ["../../wit/policy"],
                inline: $world,
                default_bindings_module: $module,
                pub_export_macro: true,
                additional_derives: [PartialEq, Clone],
            });
        }
    };
}

hook!(
    admission,
    "package tollgate:guest; world admission-hook { export tollgate:policy/admission@0.1.0; }",
    "tollgate_guest::bindings::admission"
);
hook!(
    ingestion,
    "package tollgate:guest; world ingestion-hook { export tollgate:policy/ingestion@0.1.0; }",
    "tollgate_guest::bindings::ingestion"
);
hook!(
    jobs,
    "package tollgate:guest; world jobs-hook { export tollgate:policy/jobs@0.1.0; }",
    "tollgate_guest::bindings::jobs"
);
hook!(
    lifecycle,
    "package tollgate:guest; world lifecycle-hook { export tollgate:policy/lifecycle@0.1.0; }",
    "tollgate_guest::bindings::lifecycle"
);
