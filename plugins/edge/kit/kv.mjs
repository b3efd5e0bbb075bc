// `tollgate:storage/kv` over an engine: what is the same wherever the values lie, that is, grants and limits.
//
// An engine has `getMany(keys)`, `setMany(entries, ttlMs, ifAbsent)`, `deleteMany(keys)` and `list(prefix, cursor, limit)`;
// where something atomic is to be had also `increment(key, delta, ttlMs)` and `swap(key, expected, value, ttlMs)`.

import { bytesOf, checkedNames, fits, pageLimit, sum } from './check.mjs';
import { StorageError } from './errors.mjs';
import { granted, writes } from './grants.mjs';
import { KV_KEY_BYTES, LIST_BYTES, LIST_ITEMS, VALUE_BYTES } from './limits.mjs';

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: `read` or `read-write` by name. */
export function kv(engines, grants) {
    return {
        Store: class Store {
            #engine;
            #grant;

            static async open(name) {
                const store = new Store();
                ({ engine: store.#engine, grant: store.#grant } = granted(engines, grants, name));
                return store;
            }

            async get(key) {
                return (await this.#entry(key))?.value;
            }

            async getMany(keys) {
                const entries = await this.#engine.getMany(checkedKeys(keys));
                fits(sum(entries, (entry) => entry?.value.length ?? 0) <= LIST_BYTES, 'the values together');
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
                return this.#engine.list(prefix ?? '', cursor, pageLimit(limit, LIST_ITEMS));
            }

            async increment(key, delta, ttlMs) {
                checkedKeys([key]);
                return this.#atomic(this.#writable()).increment(key, delta, ttlMs);
            }

            async read(key) {
                this.#atomic(this.#engine);
                return this.#entry(key);
            }

            async swap(key, expected, value, ttlMs) {
                checkedEntries([[key, value]]);
                return this.#atomic(this.#writable()).swap(key, expected, value, ttlMs);
            }

            async #entry(key) {
                return (await this.#engine.getMany(checkedKeys([key])))[0];
            }

            #atomic(engine) {
                if (engine.swap) return engine;
                throw new StorageError('unavailable', 'nothing is atomic where this store lies');
            }

            #writable() {
                writes(this.#grant);
                return this.#engine;
            }
        },
    };
}

/** Milliseconds since 1970 at which something ends; it is absent from that one on. */
export function expiry(now, ttlMs) {
    return ttlMs === undefined ? null : Math.min(now + Number(ttlMs), Number.MAX_SAFE_INTEGER);
}

function checkedKeys(keys) {
    return checkedNames(keys, LIST_ITEMS, KV_KEY_BYTES, 'a key');
}

function checkedEntries(entries) {
    checkedKeys(entries.map(([key]) => key));
    for (const [, value] of entries) fits(value.length <= VALUE_BYTES, 'the value');
    fits(sum(entries, ([key, value]) => bytesOf(key) + value.length) <= LIST_BYTES, 'the list');
    return entries;
}
