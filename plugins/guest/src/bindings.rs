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
            }",
        additional_derives: [PartialEq, Clone],
        additional_derives_ignore: ["cache", "store", "database", "container", "reader", "writer", "opened"],
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
