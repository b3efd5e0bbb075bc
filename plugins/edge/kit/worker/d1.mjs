// SQL databases in D1, and what keeps other stores in it.

import { StorageError } from '../errors.mjs';

/** What the statement itself or its parameters did wrong; anything else is D1's own trouble. */
const INVALID = /SQLITE_(ERROR|CONSTRAINT|MISMATCH|RANGE|AUTH)/;

/** A statement that only reads, as far as its text tells: D1 has no other way to know before it runs. */
const READS = /^\s*(select|values|with)\b/i;
const WRITES = /\b(insert|update|delete|replace)\b/i;

/** What no word of a statement stands in: comments and whatever is quoted, found from left to right as SQLite does. */
const APART = /--[^\n]*|\/\*[^]*?(?:\*\/|$)|'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]/g;

/** A parameter as Tcl writes it, `$name(…)`: SQLite takes any quote in it for a part of its name. */
const TCL = /[$@:#][\w$:\x80-\uffff]*\(/;

/** Runs statements in one transaction, for engines over SQLite. */
export function batchOf(database) {
    return async (statements) => {
        const outcomes = await database.batch(statements.map(([sql, params]) => database.prepare(sql).bind(...params)));
        return outcomes.map(({ results }) => results);
    };
}

export class D1Engine {
    #database;
    #tableGrants;

    /** `tableGrants`: what a grant of single tables means, `refused` or `not-enforced`. */
    constructor(database, tableGrants) {
        this.#database = database;
        this.#tableGrants = tableGrants;
    }

    /** D1 cannot keep anybody to some tables of a database; whoever deploys it says so. */
    open(grant) {
        if (typeof grant === 'object' && this.#tableGrants !== 'not-enforced') {
            const text = 'D1 cannot keep a plugin to its tables; set "tableGrants": "not-enforced" in stores.json to trust it';
            throw new StorageError('unavailable', text);
        }
        return this;
    }

    async query(statement) {
        const text = statement.sql.replace(APART, ' ');
        const writes = !READS.test(text) || (/^\s*with\b/i.test(text) && WRITES.test(text));
        if (writes || /;\s*\S/.test(text) || TCL.test(text)) {
            throw new StorageError('invalid', 'the statement does not only read');
        }
        const [columns, ...rows] = await explained(() => this.#prepare(statement).raw({ columnNames: true }));
        return { columns, rows: rows.map((row) => row.map(toGuest)), rowsWritten: 0n, lastInsertRowid: 0n };
    }

    async batch(statements) {
        const outcomes = await explained(() => this.#database.batch(statements.map((one) => this.#prepare(one))));
        return outcomes.map(({ results, meta }, at) => {
            const inserted = meta.changes > 0 && /^\s*(insert|replace)\b/i.test(statements[at].sql);
            return {
                // D1 names columns only where there are rows.
                columns: Object.keys(results[0] ?? {}),
                rows: results.map((row) => Object.values(row).map(toGuest)),
                rowsWritten: BigInt(meta.changes),
                lastInsertRowid: inserted ? BigInt(meta.last_row_id) : 0n,
            };
        });
    }

    #prepare({ sql, params }) {
        return this.#database.prepare(sql).bind(...params.map(fromGuest));
    }
}

async function explained(call) {
    try {
        return await call();
    } catch (error) {
        if (error instanceof StorageError) throw error;
        throw new StorageError(INVALID.test(error.message) ? 'invalid' : 'unavailable', error.message);
    }
}

/** D1's numbers are JavaScript's: an integer beyond 2^53 would silently become another one. */
function exact(number) {
    if (Number.isInteger(number) && !Number.isSafeInteger(number)) {
        throw new StorageError('invalid', 'this host has integers up to 2^53 only');
    }
    return number;
}

function fromGuest({ tag, val }) {
    return tag === 'integer' ? exact(Number(val)) : (val ?? null);
}

/** A whole real comes as an integer, since D1 does not tell them apart. */
function toGuest(value) {
    if (value === null) return { tag: 'null' };
    if (typeof value === 'string') return { tag: 'text', val: value };
    if (typeof value !== 'number') return { tag: 'blob', val: Uint8Array.from(value) };
    return Number.isInteger(exact(value)) ? { tag: 'integer', val: BigInt(value) } : { tag: 'real', val: value };
}
