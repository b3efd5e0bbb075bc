// Vector indexes in SQLite: every query is compared with each vector, exactly. `batch` must be done when it returns, so that
// no query sees half of a change.

import { StorageError } from '../errors.mjs';
import { find, parseFilter } from '../filter.mjs';
import { VECTORS } from '../limits.mjs';
import { bytes } from './bytes.mjs';

export const SCHEMA = [
    `CREATE TABLE IF NOT EXISTS vector (
        number INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, id TEXT NOT NULL, namespace TEXT, metadata TEXT,
        vals BLOB NOT NULL, UNIQUE (place, id))`,
];

/** Vectors that a query has in memory at once. */
const PAGE = 256;

const COUNT = 'SELECT count(*) AS count FROM vector WHERE place = ?1';
const THERE = 'SELECT id FROM vector WHERE place = ?1 AND id IN (SELECT value FROM json_each(?2))';
const GET = 'SELECT * FROM vector WHERE place = ?1 AND id IN (SELECT value FROM json_each(?2))';
const DELETE = 'DELETE FROM vector WHERE place = ?1 AND id IN (SELECT value FROM json_each(?2)) RETURNING id';
const INSERT = 'INSERT INTO vector (place, id, namespace, metadata, vals) VALUES (?1, ?2, ?3, ?4, ?5)';
const SCAN = `SELECT * FROM vector WHERE place = ?1 AND number > ?2 AND (?3 IS NULL OR namespace = ?3)
    ORDER BY number LIMIT ${PAGE}`;

const METRICS = {
    cosine: (one, other) => {
        const lengths = Math.sqrt(dot(one, one) * dot(other, other));
        return lengths === 0 ? 0 : dot(one, other) / lengths;
    },
    'dot-product': dot,
    euclidean: (one, other) => Math.sqrt(one.reduce((sum, value, at) => sum + (value - other[at]) ** 2, 0)),
};

export class VectorEngine {
    #batch;
    #place;
    #most;

    /** The options are those of tollgate.toml for an index, in JavaScript's names. */
    constructor(batch, place, { dimensions, metric = 'cosine', indexed = [], vectorLimit = VECTORS }) {
        Object.assign(this, { dimensions, metric, indexed });
        [this.#batch, this.#place, this.#most] = [batch, place, vectorLimit];
    }

    write(vectors, onlyNew) {
        const ids = JSON.stringify(vectors.map(({ id }) => id));
        const [[{ count }], there] = this.#batch([this.#of(COUNT), this.#of(THERE, ids)]);
        if (onlyNew && there.length > 0) throw new StorageError('conflict');
        if (count - there.length + vectors.length > this.#most) {
            throw new StorageError('too-large', `the index holds ${this.#most} vectors`);
        }
        const inserts = vectors.map(({ id, namespace, metadata, values }) =>
            this.#of(INSERT, id, namespace ?? null, metadata ?? null, toBytes(values)),
        );
        this.#batch([this.#of(DELETE, ids), ...inserts]);
    }

    getMany(ids) {
        const found = this.#byId(ids);
        return ids.flatMap((id) => (found.has(id) ? [vectorOf(found.get(id))] : []));
    }

    deleteMany(ids) {
        return this.#batch([this.#of(DELETE, JSON.stringify(ids))])[0].length;
    }

    query(target, { topK, namespace, filter, returnValues, returnMetadata }) {
        const takes = parseFilter(filter, this.indexed);
        const wanted = target.tag === 'values' ? Float32Array.from(target.val) : this.#valuesOf(target.val);
        const score = METRICS[this.metric];
        // Of the equally near the first written come first, so a later one never takes the place of an equal.
        const nearer = this.metric === 'euclidean' ? (a, b) => a < b : (a, b) => a > b;
        const best = [];
        for (const row of this.#rows(namespace)) {
            if (!takes(row.metadata === null ? undefined : JSON.parse(row.metadata))) continue;
            const match = { row, score: score(wanted, toValues(row.vals)) };
            if (best.length === topK && !nearer(match.score, best.at(-1).score)) continue;
            const at = best.findIndex((other) => nearer(match.score, other.score));
            best.splice(at < 0 ? best.length : at, 0, match);
            best.length = Math.min(best.length, topK);
        }
        return best.map(({ row, score }) => ({
            id: row.id,
            score,
            namespace: row.namespace ?? undefined,
            values: returnValues ? Array.from(toValues(row.vals)) : undefined,
            metadata: this.#shown(row.metadata, returnMetadata),
        }));
    }

    describe() {
        const [[{ count }]] = this.#batch([this.#of(COUNT)]);
        return {
            dimensions: this.dimensions,
            metric: this.metric,
            vectors: BigInt(count),
            valueBytes: BigInt(count * this.dimensions * 4),
            memoryBytes: 0n,
            recall: undefined,
        };
    }

    *#rows(namespace) {
        let last = 0;
        for (;;) {
            const [rows] = this.#batch([this.#of(SCAN, last, namespace ?? null)]);
            yield* rows;
            if (rows.length < PAGE) return;
            last = rows.at(-1).number;
        }
    }

    #valuesOf(id) {
        const row = this.#byId([id]).get(id);
        if (!row) throw new StorageError('invalid', `there is no vector ${id}`);
        return toValues(row.vals);
    }

    #byId(ids) {
        const [rows] = this.#batch([this.#of(GET, JSON.stringify(ids))]);
        return new Map(rows.map((row) => [row.id, row]));
    }

    #shown(metadata, wanted) {
        if (metadata === null || wanted === 'none') return undefined;
        if (wanted === 'all') return metadata;
        const picked = {};
        for (const name of this.indexed) {
            const value = find(JSON.parse(metadata), name);
            if (value !== undefined) place(picked, name.split('.'), value);
        }
        return Object.keys(picked).length > 0 ? JSON.stringify(picked) : undefined;
    }

    #of(sql, ...params) {
        return [sql, [this.#place, ...params]];
    }
}

function place(object, [name, ...rest], value) {
    if (rest.length === 0) object[name] = value;
    else place((object[name] ??= {}), rest, value);
}

function dot(one, other) {
    return one.reduce((sum, value, at) => sum + value * other[at], 0);
}

function vectorOf({ id, vals, namespace, metadata }) {
    const values = Array.from(toValues(vals));
    return { id, values, namespace: namespace ?? undefined, metadata: metadata ?? undefined };
}

function toBytes(values) {
    return new Uint8Array(Float32Array.from(values).buffer);
}

/** A copy, since a view of floats must begin at a multiple of four. */
function toValues(found) {
    return new Float32Array(bytes(found).slice().buffer);
}
