// Key-value stores in Workers KV: fast to read everywhere and late to change. Nothing in it is atomic, so this engine
// has no `increment`, `swap` and set-if-absent, and of a list of entries some may be written and others not.

import { expiry } from '../kv.mjs';

/** Workers KV keeps nothing for less. The exact expiry is in the metadata, and decides. */
const SHORTEST_TTL_SECONDS = 60;

export class NamespaceEngine {
    #namespace;
    #now;

    /** `now`: milliseconds since 1970. */
    constructor(namespace, now) {
        this.#namespace = namespace;
        this.#now = now;
    }

    getMany(keys) {
        return Promise.all(
            keys.map(async (key) => {
                const { value, metadata } = await this.#namespace.getWithMetadata(key, 'arrayBuffer');
                return value && this.#live(metadata) ? { value: new Uint8Array(value) } : undefined;
            }),
        );
    }

    async setMany(entries, ttlMs) {
        const expires = expiry(this.#now(), ttlMs);
        const options = expires === null ? {} : { metadata: { expires }, expirationTtl: seconds(ttlMs) };
        await Promise.all(entries.map(([key, value]) => this.#namespace.put(key, value, options)));
        return true;
    }

    async deleteMany(keys) {
        await Promise.all(keys.map((key) => this.#namespace.delete(key)));
    }

    async list(prefix, cursor, limit) {
        const page = await this.#namespace.list({ prefix, cursor, limit });
        const keys = page.keys.filter(({ metadata }) => this.#live(metadata)).map(({ name }) => name);
        return { keys, cursor: page.list_complete ? undefined : page.cursor };
    }

    #live(metadata) {
        return metadata?.expires === undefined || metadata.expires > this.#now();
    }
}

function seconds(ttlMs) {
    return Math.max(SHORTEST_TTL_SECONDS, Math.ceil(Number(ttlMs) / 1_000));
}
