// Key-value stores in D1, for stores with `increment`, `read` and `swap`: Workers KV has nothing atomic.

import { StorageError } from '../common/errors.mjs';
import { expiry } from '../common/kv.mjs';

/** The tables of all stores in one database. Versions come from one counter, so that none is ever used twice. */
export const SCHEMA = [
    `CREATE TABLE IF NOT EXISTS kv (
        store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, expires_ms INTEGER,
        PRIMARY KEY (store, key)) WITHOUT ROWID`,
    'CREATE TABLE IF NOT EXISTS kv_version (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL)',
    'INSERT OR IGNORE INTO kv_version VALUES (1, 0)',
];

const NEXT_VERSION = 'UPDATE kv_version SET last = last + 1';

/** Parameters everywhere: ?1 the store, ?2 the key or keys, ?3 the time; written ones from ?4 on. */
const LIVE = '(expires_ms IS NULL OR expires_ms > ?3)';

const GET = `SELECT key, value, version FROM kv
    WHERE store = ?1 AND key IN (SELECT value FROM json_each(?2)) AND ${LIVE}`;

const LIST = `SELECT key FROM kv WHERE store = ?1 AND key >= ?2 AND ${LIVE}
    AND key > ?4 AND substr(key, 1, length(?2)) = ?2 ORDER BY key LIMIT ?5`;

const SET = `INSERT INTO kv SELECT ?1, ?2, ?4, last, ?5 FROM kv_version WHERE TRUE
    ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version, expires_ms = excluded.expires_ms
    WHERE NOT ?6 OR NOT ${LIVE} RETURNING version`;

const SWAP = `INSERT INTO kv SELECT ?1, ?2, ?4, last, ?5 FROM kv_version
    WHERE (SELECT version FROM kv WHERE store = ?1 AND key = ?2 AND ${LIVE}) IS ?6
    ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version, expires_ms = excluded.expires_ms
    RETURNING version`;

const DELETE = 'DELETE FROM kv WHERE store = ?1 AND key IN (SELECT value FROM json_each(?2))';

/** The value as an integer; null where it is none. */
const NUMBER = `iif(CAST(CAST(CAST(kv.value AS TEXT) AS INTEGER) AS TEXT) = CAST(kv.value AS TEXT),
    CAST(CAST(kv.value AS TEXT) AS INTEGER), NULL)`;

/** A sum out of range is a real in SQLite, and so no row. Sums are text on their way: they may be beyond 2^53. */
const INCREMENT = `INSERT INTO kv SELECT ?1, ?2, CAST(?4 AS BLOB), last, ?5 FROM kv_version WHERE TRUE
    ON CONFLICT DO UPDATE SET
        value = CAST(CAST(iif(${LIVE}, ${NUMBER}, 0) + CAST(?4 AS INTEGER) AS TEXT) AS BLOB),
        version = excluded.version,
        expires_ms = iif(${LIVE}, expires_ms, excluded.expires_ms)
    WHERE typeof(iif(${LIVE}, ${NUMBER}, 0) + CAST(?4 AS INTEGER)) = 'integer' RETURNING CAST(value AS TEXT) AS sum`;

export class D1Engine {
    #database;
    #store;
    #now;

    /** `now`: milliseconds since 1970. */
    constructor(database, store, now) {
        this.#database = database;
        this.#store = store;
        this.#now = now;
    }

    async getMany(keys) {
        const { results } = await this.#prepare(GET, JSON.stringify(keys), this.#now()).all();
        const found = new Map(results.map((row) => [row.key, entry(row)]));
        return keys.map((key) => found.get(key));
    }

    async setMany(entries, ttlMs, ifAbsent) {
        const now = this.#now();
        const expires = expiry(now, ttlMs);
        const sets = entries.map(([key, value]) => this.#prepare(SET, key, now, value, expires, ifAbsent ? 1 : 0));
        const [, ...written] = await this.#database.batch([this.#database.prepare(NEXT_VERSION), ...sets]);
        return written.every(({ results }) => results.length === 1);
    }

    async deleteMany(keys) {
        await this.#prepare(DELETE, JSON.stringify(keys)).run();
    }

    async list(prefix, cursor, limit) {
        const { results } = await this.#prepare(LIST, prefix, this.#now(), cursor ?? '', limit + 1).all();
        const keys = results.slice(0, limit).map(({ key }) => key);
        return { keys, cursor: results.length > limit ? keys.at(-1) : undefined };
    }

    async increment(key, delta, ttlMs) {
        const now = this.#now();
        const [, { results }] = await this.#database.batch([
            this.#database.prepare(NEXT_VERSION),
            this.#prepare(INCREMENT, key, now, String(delta), expiry(now, ttlMs)),
        ]);
        if (results.length === 0) throw new StorageError('invalid', 'no number, or the sum is out of range');
        return BigInt(results[0].sum);
    }

    async swap(key, expected, value, ttlMs) {
        const now = this.#now();
        const version = expected === undefined ? null : Number(expected);
        const [, written, present] = await this.#database.batch([
            this.#database.prepare(NEXT_VERSION),
            this.#prepare(SWAP, key, now, value, expiry(now, ttlMs), version),
            this.#prepare(GET, JSON.stringify([key]), now),
        ]);
        if (written.results.length === 1) return { tag: 'swapped', val: BigInt(written.results[0].version) };
        return { tag: 'stale', val: present.results.map(entry)[0] };
    }

    #prepare(sql, ...params) {
        return this.#database.prepare(sql).bind(this.#store, ...params);
    }
}

function entry({ value, version }) {
    return { value: Uint8Array.from(value), version: BigInt(version) };
}
