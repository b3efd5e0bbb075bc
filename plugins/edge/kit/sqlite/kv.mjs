// Key-value stores in SQLite, wherever it runs.

import { bytes } from './bytes.mjs';
import { StorageError } from '../errors.mjs';
import { expiry } from '../kv.mjs';

/** The tables of all stores in one database. Versions come from one counter, so that none is ever used twice. */
export const SCHEMA = [
    `CREATE TABLE IF NOT EXISTS kv (
        store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, expires_ms INTEGER,
        PRIMARY KEY (store, key)) WITHOUT ROWID`,
    'CREATE INDEX IF NOT EXISTS kv_expires ON kv (store, expires_ms) WHERE expires_ms IS NOT NULL',
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

/** Each write removes a few entries that have expired, so that they go as fast as others come. */
const SWEEP = `DELETE FROM kv WHERE store = ?1 AND key IN
    (SELECT key FROM kv WHERE store = ?1 AND expires_ms <= ?2 ORDER BY expires_ms LIMIT 8)`;

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

export class KvEngine {
    #batch;
    #store;
    #now;

    /**
     * `batch`: runs statements, each a text with its parameters, in one transaction, and answers the rows of each;
     * `now`: milliseconds since 1970.
     */
    constructor(batch, store, now) {
        this.#batch = batch;
        this.#store = store;
        this.#now = now;
    }

    async getMany(keys) {
        const [rows] = await this.#batch([this.#of(GET, JSON.stringify(keys), this.#now())]);
        const found = new Map(rows.map((row) => [row.key, entry(row)]));
        return keys.map((key) => found.get(key));
    }

    async setMany(entries, ttlMs, ifAbsent) {
        const now = this.#now();
        const expires = expiry(now, ttlMs);
        const sets = entries.map(([key, value]) => this.#of(SET, key, now, value, expires, ifAbsent ? 1 : 0));
        const [, , ...written] = await this.#batch([...this.#begin(now), ...sets]);
        return written.every((rows) => rows.length === 1);
    }

    async deleteMany(keys) {
        await this.#batch([this.#of(DELETE, JSON.stringify(keys))]);
    }

    async list(prefix, cursor, limit) {
        const [rows] = await this.#batch([this.#of(LIST, prefix, this.#now(), cursor ?? '', limit + 1)]);
        const keys = rows.slice(0, limit).map(({ key }) => key);
        return { keys, cursor: rows.length > limit ? keys.at(-1) : undefined };
    }

    async increment(key, delta, ttlMs) {
        const now = this.#now();
        const add = this.#of(INCREMENT, key, now, String(delta), expiry(now, ttlMs));
        const [, , [written]] = await this.#batch([...this.#begin(now), add]);
        if (!written) throw new StorageError('invalid', 'no number, or the sum is out of range');
        return BigInt(written.sum);
    }

    async swap(key, expected, value, ttlMs) {
        const now = this.#now();
        const version = expected === undefined ? null : Number(expected);
        const [, , [written], [present]] = await this.#batch([
            ...this.#begin(now),
            this.#of(SWAP, key, now, value, expiry(now, ttlMs), version),
            this.#of(GET, JSON.stringify([key]), now),
        ]);
        if (written) return { tag: 'swapped', val: BigInt(written.version) };
        return { tag: 'stale', val: present && entry(present) };
    }

    #begin(now) {
        return [[NEXT_VERSION, []], this.#of(SWEEP, now)];
    }

    #of(sql, ...params) {
        return [sql, [this.#store, ...params]];
    }
}

function entry({ value, version }) {
    return { value: bytes(value), version: BigInt(version) };
}
