// Key-value stores in a Map.

import { expiry, sumOf } from '../common/kv.mjs';

export class MapEngine {
    #entries = new Map();
    #version = 0n;
    #now;

    /** `now`: milliseconds since 1970. */
    constructor(now) {
        this.#now = now;
    }

    getMany(keys) {
        return keys.map((key) => this.#live(key));
    }

    setMany(entries, ttlMs, ifAbsent) {
        if (ifAbsent && entries.some(([key]) => this.#live(key))) return false;
        for (const [key, value] of entries) this.#write(key, value, expiry(this.#now(), ttlMs));
        return true;
    }

    deleteMany(keys) {
        for (const key of keys) this.#entries.delete(key);
    }

    list(prefix, cursor, limit) {
        const after = (key) => cursor === undefined || inOrder(cursor, key) < 0;
        const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix) && after(key) && this.#live(key));
        keys.sort(inOrder);
        return { keys: keys.slice(0, limit), cursor: keys.length > limit ? keys[limit - 1] : undefined };
    }

    increment(key, delta, ttlMs) {
        const entry = this.#live(key);
        const total = sumOf(entry?.value, delta);
        const expires = entry ? entry.expires : expiry(this.#now(), ttlMs);
        this.#write(key, new TextEncoder().encode(String(total)), expires);
        return total;
    }

    swap(key, expected, value, ttlMs) {
        const entry = this.#live(key);
        if (entry?.version !== expected) return { tag: 'stale', val: entry };
        return { tag: 'swapped', val: this.#write(key, value, expiry(this.#now(), ttlMs)) };
    }

    #live(key) {
        const entry = this.#entries.get(key);
        return entry && (entry.expires === null || entry.expires > this.#now()) ? entry : undefined;
    }

    #write(key, value, expires) {
        this.#version += 1n;
        this.#entries.set(key, { value, version: this.#version, expires });
        return this.#version;
    }
}

/** Keys are ordered by their UTF-8 bytes, which is not the order of JavaScript's strings. */
function inOrder(a, b) {
    return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
