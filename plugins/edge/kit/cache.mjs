// `tollgate:storage/cache` over an engine: what is the same wherever the entries lie, that is, grants and limits.
//
// An engine has `getMany(keys)`, `setMany(entries, ttlMs, priority)`, `delete(key)` and `stats()`.

import { bytesOf, checkedNames, fits, sum } from './check.mjs';
import { granted, writes } from './grants.mjs';
import { CACHE_TTL_MS, KV_KEY_BYTES, LIST_BYTES, LIST_ITEMS, VALUE_BYTES } from './limits.mjs';

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: `read` or `read-write` by name. */
export function cache(engines, grants) {
    return {
        Cache: class Cache {
            #engine;
            #grant;

            static async open(name) {
                const cache = new Cache();
                ({ engine: cache.#engine, grant: cache.#grant } = granted(engines, grants, name));
                return cache;
            }

            async get(key) {
                return (await this.getMany([key]))[0];
            }

            async getMany(keys) {
                const values = await this.#engine.getMany(checkedKeys(keys));
                fits(sum(values, (value) => value?.length ?? 0) <= LIST_BYTES, 'the values together');
                return values;
            }

            async set(key, value, options) {
                await this.setMany([[key, value]], options);
            }

            async setMany(entries, { ttlMs, priority }) {
                writes(this.#grant);
                checkedKeys(entries.map(([key]) => key));
                for (const [, value] of entries) fits(value.length <= VALUE_BYTES, 'the value');
                fits(sum(entries, ([key, value]) => bytesOf(key) + value.length) <= LIST_BYTES, 'the list');
                const ttl = ttlMs === undefined ? undefined : Math.min(Number(ttlMs), CACHE_TTL_MS);
                await this.#engine.setMany(entries, ttl, priority);
            }

            async delete(key) {
                writes(this.#grant);
                await this.#engine.delete(checkedKeys([key])[0]);
            }

            async stats() {
                const { entries, expired, bytes, hits, misses, ttlMs } = await this.#engine.stats();
                const hitRate = hits + misses === 0 ? 0 : hits / (hits + misses);
                const [wide, ttl] = [[entries, expired, bytes, hits, misses].map(BigInt), BigInt(ttlMs)];
                return { entries: wide[0], expired: wide[1], bytes: wide[2], hits: wide[3], misses: wide[4], hitRate, ttlMs: ttl };
            }
        },
    };
}

function checkedKeys(keys) {
    return checkedNames(keys, LIST_ITEMS, KV_KEY_BYTES, 'a key');
}
