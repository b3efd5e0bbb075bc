// SQL databases in Node's own SQLite.

import { DatabaseSync } from 'node:sqlite';
import { StorageError } from '../common/errors.mjs';

export class SqliteEngine {
    #database;

    /** `path`: a file, or `:memory:`. */
    constructor(path) {
        this.#database = new DatabaseSync(path);
    }

    query(statement) {
        this.#database.exec('PRAGMA query_only = 1');
        try {
            return this.#run(statement);
        } finally {
            this.#database.exec('PRAGMA query_only = 0');
        }
    }

    batch(statements) {
        this.#database.exec('BEGIN IMMEDIATE');
        try {
            const outcomes = statements.map((statement) => this.#run(statement));
            this.#database.exec('COMMIT');
            return outcomes;
        } catch (error) {
            this.#database.exec('ROLLBACK');
            throw error;
        }
    }

    #run({ sql, params }) {
        const before = this.#numbers();
        let statement, rows;
        try {
            statement = this.#database.prepare(sql);
            statement.setReadBigInts(true);
            statement.setReturnArrays(true);
            // A bigint is bound as an integer and a number as a real, so that both arrive as what they are.
            rows = statement.all(...params.map(({ val }) => val ?? null));
        } catch (error) {
            throw new StorageError('invalid', error.message);
        }
        const after = this.#numbers();
        const rowsWritten = after.total === before.total ? 0n : after.changes;
        const inserted = rowsWritten > 0n && /^\s*(insert|replace)\b/i.test(sql);
        return {
            columns: statement.columns().map(({ name }) => name),
            rows: rows.map((row) => row.map(toGuest)),
            rowsWritten,
            lastInsertRowid: inserted ? after.rowid : 0n,
        };
    }

    #numbers() {
        const sql = 'SELECT total_changes() AS total, changes() AS changes, last_insert_rowid() AS rowid';
        const statement = this.#database.prepare(sql);
        statement.setReadBigInts(true);
        return statement.get();
    }
}

function toGuest(value) {
    switch (typeof value) {
        case 'bigint':
            return { tag: 'integer', val: value };
        case 'number':
            return { tag: 'real', val: value };
        case 'string':
            return { tag: 'text', val: value };
        default:
            return value === null ? { tag: 'null' } : { tag: 'blob', val: value };
    }
}
