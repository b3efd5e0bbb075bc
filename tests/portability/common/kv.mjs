// `tollgate:storage/kv` over an engine: what is the same wherever the values lie, that is, grants and limits.
//
// An engine has `getMany(keys)`, `setMany(entries, ttlMs, ifAbsent)`, `deleteMany(keys)` and
// `list(prefix, cursor, limit)`; where something atomic is to be had also `increment(key, delta, ttlMs)` and
// `swap(key, expected, value, ttlMs)`.

import { StorageError } from './errors.mjs';
import { granted } from './grants.mjs';

const KEY_BYTES = 512;
const VALUE_BYTES = 1 << 20;
const LIST_ITEMS = 1_000;
const LIST_BYTES = 8 << 20;

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: `read` or `read-write` by name. */
export function kv(engines, grants) {
    return {
        Store: class Store {
            static async open(name) {
                const store = new Store();
                store.access = granted(engines, grants, name);
                store.engine = engines.get(name);
                return store;
            }

            async get(key) {
                return (await this.#entry(key))?.value;
            }

            async getMany(keys) {
                const entries = await this.engine.getMany(checkedKeys(keys));
                check(sum(entries, (entry) => entry?.value.length ?? 0) <= LIST_BYTES, 'the values together');
                return entries.map((entry) => entry?.value);
            }

            async set(key, value, { ttlMs, ifAbsent }) {
                const engine = ifAbsent ? this.#atomic(this.#writable()) : this.#writable();
                return engine.setMany(checkedEntries([[key, value]]), ttlMs, ifAbsent);
            }

            async setMany(entries, ttlMs) {
                await this.#writable().setMany(checkedEntries(entries), ttlMs, false);
            }

            async delete(key) {
                await this.deleteMany([key]);
            }

            async deleteMany(keys) {
                await this.#writable().deleteMany(checkedKeys(keys));
            }

            async exists(key) {
                return (await this.#entry(key)) !== undefined;
            }

            async listKeys(prefix, cursor, limit) {
                return this.engine.list(prefix ?? '', cursor, Math.min(Math.max(limit, 1), LIST_ITEMS));
            }

            async increment(key, delta, ttlMs) {
                checkedKeys([key]);
                return this.#atomic(this.#writable()).increment(key, delta, ttlMs);
            }

            async read(key) {
                this.#atomic(this.engine);
                return this.#entry(key);
            }

            async swap(key, expected, value, ttlMs) {
                checkedEntries([[key, value]]);
                return this.#atomic(this.#writable()).swap(key, expected, value, ttlMs);
            }

            async #entry(key) {
                return (await this.engine.getMany(checkedKeys([key])))[0];
            }

            #atomic(engine) {
                if (engine.swap) return engine;
                throw new StorageError('unavailable', 'nothing is atomic where this store lies');
            }

            #writable() {
                if (this.access !== 'read-write') throw new StorageError('access-denied');
                return this.engine;
            }
        },
    };
}

/** Milliseconds since 1970 at which something ends; it is absent from that one on. */
export function expiry(now, ttlMs) {
    return ttlMs === undefined ? null : Math.min(now + Number(ttlMs), Number.MAX_SAFE_INTEGER);
}

/** The number that `increment` finds, and the sum that it writes. */
export function sumOf(value, delta) {
    const text = value === undefined ? '0' : new TextDecoder().decode(value);
    if (!/^-?\d+$/.test(text)) throw new StorageError('invalid', 'the value is no number');
    const total = BigInt(text) + delta;
    if (BigInt.asIntN(64, total) !== total) throw new StorageError('invalid', 'the sum is out of range');
    return total;
}

function checkedKeys(keys) {
    check(keys.length <= LIST_ITEMS, 'the list');
    for (const key of keys) {
        if (key === '') throw new StorageError('invalid', 'a key is not empty');
        check(bytesOf(key) <= KEY_BYTES, 'the key');
    }
    return keys;
}

function checkedEntries(entries) {
    checkedKeys(entries.map(([key]) => key));
    for (const [, value] of entries) check(value.length <= VALUE_BYTES, 'the value');
    check(sum(entries, ([key, value]) => bytesOf(key) + value.length) <= LIST_BYTES, 'the list');
    return entries;
}

function bytesOf(text) {
    return new TextEncoder().encode(text).length;
}

function check(fits, what) {
    if (!fits) throw new StorageError('too-large', `${what} is over the limit`);
}

function sum(items, bytes) {
    return items.reduce((total, item) => total + bytes(item), 0);
}
