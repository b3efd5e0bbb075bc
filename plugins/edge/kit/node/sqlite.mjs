// SQL databases in Node's own SQLite, and what keeps other stores in it.

import { DatabaseSync } from 'node:sqlite';
import { StorageError } from '../errors.mjs';
import { authorizer } from './access.mjs';

/** SQLite's code for what the authorizer refused. */
const REFUSED = 23;

/** Opens a file, or `:memory:`: what has been committed is on disk, and no other process opens it meanwhile. */
export function openFile(path) {
    const database = new DatabaseSync(path);
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    return database;
}

/** Runs statements in one transaction, for engines over SQLite. It is done when it returns. */
export function batchOf(database) {
    const prepared = new Map();
    const prepare = (sql) => {
        if (!prepared.has(sql)) prepared.set(sql, database.prepare(sql));
        return prepared.get(sql);
    };
    return (statements) => atomically(database, () => statements.map(([sql, params]) => prepare(sql).all(...params)));
}

function atomically(database, work) {
    database.exec('BEGIN IMMEDIATE');
    try {
        const done = work();
        database.exec('COMMIT');
        return done;
    } catch (error) {
        if (database.isTransaction) database.exec('ROLLBACK');
        throw error;
    }
}

export class SqliteEngine {
    #database;
    /** What a plugin's statement that is under way may do; none: it is our own. */
    #rules;

    /** `path`: a file, or `:memory:`. */
    constructor(path) {
        this.#database = openFile(path);
        this.#database.setAuthorizer((...asked) => this.#rules?.(...asked) ?? 0);
    }

    /** What the database is for who has this grant. */
    open(grant) {
        return {
            query: (statement) => this.#query(grant, statement),
            batch: (statements) =>
                atomically(this.#database, () => statements.map((statement) => this.#run(grant, statement))),
        };
    }

    close() {
        this.#database.close();
    }

    #query(grant, statement) {
        this.#database.exec('PRAGMA query_only = 1');
        try {
            return this.#run(grant, statement);
        } finally {
            this.#database.exec('PRAGMA query_only = 0');
        }
    }

    #run(grant, { sql, params }) {
        const before = this.#numbers();
        const rules = authorizer(grant, sql, typeof grant === 'string' ? new Set() : this.#names());
        let statement, rows;
        this.#rules = rules;
        try {
            statement = this.#database.prepare(sql);
            if (isMore(sql.slice(statement.sourceSQL.length))) throw new Error('there is more than one statement');
            statement.setReadBigInts(true);
            statement.setReturnArrays(true);
            // A bigint is bound as an integer and a number as a real, so that both arrive as what they are.
            rows = statement.all(...params.map(({ val }) => val ?? null));
        } catch (error) {
            if (error.errcode === REFUSED) throw new StorageError('access-denied');
            throw new StorageError('invalid', error.message);
        } finally {
            this.#rules = undefined;
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

    #names() {
        const rows = this.#database.prepare('SELECT lower(name) AS name FROM sqlite_master').all();
        return new Set(rows.map(({ name }) => name));
    }
}

/** Whether what stands behind a statement is another one, and no space or comment. */
function isMore(text) {
    return text.replace(/\/\*[^]*?(\*\/|$)|--[^\n]*|[;\s]/g, '') !== '';
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
