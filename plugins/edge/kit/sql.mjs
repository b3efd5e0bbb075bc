// `tollgate:storage/sql` over an engine: what is the same wherever the tables lie.
//
// An engine has `open(grant)`, which answers what has `query(statement)` and `batch(statements)`, in one transaction, within
// that grant: `read`, `read-write`, or one of them for each table that is granted.

import { fits } from './check.mjs';
import { granted, guarded, writes } from './grants.mjs';
import { BATCH_STATEMENTS } from './limits.mjs';

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: what the manifest grants, by name. */
export function sql(engines, grants) {
    return {
        Database: class Database {
            #tables;
            #grant;

            static async open(name) {
                const { engine, grant } = granted(engines, grants, name);
                const database = new Database();
                database.#tables = guarded(await engine.open(grant));
                database.#grant = grant;
                return database;
            }

            async query(statement) {
                return this.#tables.query(statement);
            }

            async execute(statement) {
                return (await this.batch([statement]))[0];
            }

            async batch(statements) {
                writes(this.#grant);
                fits(statements.length <= BATCH_STATEMENTS, 'the batch');
                return this.#tables.batch(statements);
            }
        },
    };
}
