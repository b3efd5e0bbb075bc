//! The WIT contracts as Rust types: the only place of `bindgen!`.
//!
//! One small world per hook, so that a component exports any of them; the imports are generated once, for all.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the WIT files document what is here"
)]

/// What the host serves to guests.
pub mod imports {
    wasmtime::component::bindgen!({
        path: ["../wit/storage", "../wit/policy"],
        inline: "
            package tollgate:imports;
            world imports {
                import tollgate:storage/cache@0.1.0;
                import tollgate:storage/kv@0.1.0;
                import tollgate:storage/sql@0.1.0;
                import tollgate:storage/blob@0.1.0;
                import tollgate:storage/vector@0.1.0;
            }
        ",
        imports: { default: async },
        with: {
            "tollgate:storage/cache.cache": crate::capability::cache::OpenCache,
            "tollgate:storage/kv.store": crate::capability::kv::OpenStore,
            "tollgate:storage/sql.database": crate::capability::sql::OpenDatabase,
            "tollgate:storage/blob.container": crate::capability::blob::OpenContainer,
            "tollgate:storage/blob.reader": crate::capability::blob::OpenReader,
            "tollgate:storage/blob.writer": crate::capability::blob::OpenWriter,
            "tollgate:storage/vector.index": crate::capability::vector::OpenIndex,
        },
    });
}

/// What WASI calls the same things, for components written for other hosts.
pub mod standards {
    wasmtime::component::bindgen!({
        path: [
            "../wit/wasi-io", "../wit/wasi-blobstore", "../wit/wasi-keyvalue", "../wit/wasi-config", "../wit/wasi-logging",
        ],
        inline: "
            package tollgate:standards;
            world standards {
                import wasi:blobstore/types@0.2.0-draft;
                import wasi:blobstore/container@0.2.0-draft;
                import wasi:blobstore/blobstore@0.2.0-draft;
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
                import wasi:config/store@0.2.0-rc.1;
                import wasi:logging/logging@0.1.0-draft;
            }
        ",
        imports: {
            "wasi:blobstore/types.[static]outgoing-value.new-outgoing-value": async | trappable,
            default: async,
        },
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:blobstore/types.outgoing-value": crate::capability::blob::blobstore::OutgoingValue,
            "wasi:blobstore/types.incoming-value": crate::capability::blob::blobstore::IncomingValue,
            "wasi:blobstore/container.container": crate::capability::blob::OpenContainer,
            "wasi:blobstore/container.stream-object-names": crate::capability::blob::blobstore::ObjectNames,
            "wasi:keyvalue/store.bucket": crate::capability::kv::OpenStore,
            "wasi:keyvalue/atomics.cas": crate::capability::kv::keyvalue::Cas,
        },
    });
}

/// The admission hook.
pub mod admission {
    wasmtime::component::bindgen!({
        path: ["../wit/storage", "../wit/policy"],
        inline: "
            package tollgate:admission;
            world hook { export tollgate:policy/admission@0.1.0; }
        ",
        exports: { default: async },
        additional_derives: [PartialEq],
    });
}

/// The ingestion hook. Events rest in a durable queue, hence serde.
pub mod ingestion {
    wasmtime::component::bindgen!({
        path: ["../wit/storage", "../wit/policy"],
        inline: "
            package tollgate:ingestion;
            world hook { export tollgate:policy/ingestion@0.1.0; }
        ",
        exports: { default: async },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// The jobs hook.
pub mod jobs {
    wasmtime::component::bindgen!({
        path: ["../wit/storage", "../wit/policy"],
        inline: "
            package tollgate:jobs;
            world hook { export tollgate:policy/jobs@0.1.0; }
        ",
        exports: { default: async },
        additional_derives: [PartialEq],
    });
}

/// The lifecycle hook.
pub mod lifecycle {
    wasmtime::component::bindgen!({
        path: ["../wit/storage", "../wit/policy"],
        inline: "
            package tollgate:lifecycle;
            world hook { export tollgate:policy/lifecycle@0.1.0; }
        ",
        exports: { default: async },
    });
}
