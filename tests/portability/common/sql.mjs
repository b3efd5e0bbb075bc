// `tollgate:storage/sql` over an engine: what is the same wherever the tables lie.
//
// An engine has `query(statement)` and `batch(statements)`, which runs in one transaction.

import { StorageError } from './errors.mjs';
import { granted } from './grants.mjs';

const BATCH_STATEMENTS = 10_000;

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: what the manifest grants, by name. */
export function sql(engines, grants) {
    return {
        Database: class Database {
            static async open(name) {
                const database = new Database();
                // No engine here can keep a plugin to some tables of a database: whoever deploys it trusts it so far.
                database.writable = granted(engines, grants, name) !== 'read';
                database.engine = engines.get(name);
                return database;
            }

            async query(statement) {
                return this.engine.query(statement);
            }

            async execute(statement) {
                return (await this.batch([statement]))[0];
            }

            async batch(statements) {
                if (!this.writable) throw new StorageError('access-denied');
                if (statements.length > BATCH_STATEMENTS) {
                    throw new StorageError('too-large', `a batch may have ${BATCH_STATEMENTS} statements`);
                }
                return this.engine.batch(statements);
            }
        },
    };
}
