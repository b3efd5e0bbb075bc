// Caches in memory. Each priority has room of its own, and what has not been used for longest makes place.

import { bytesOf } from './check.mjs';

/** How long entries live and which priority they have, by the names that tollgate.toml has for it. */
const STRATEGIES = {
    'model-list': [60 * 60_000, 'high'],
    health: [5 * 60_000, 'medium'],
    'key-metrics': [10 * 60_000, 'low'],
    request: [60_000, 'low'],
};

/** What an entry takes beside its key and value. */
const OVERHEAD_BYTES = 64;

export class MemoryCache {
    #rooms = { low: new Room(), medium: new Room(), high: new Room() };
    #counts = { expired: 0, hits: 0, misses: 0 };
    #now;
    #most;
    #ttlMs;
    #priority;

    /** `now`: milliseconds since 1970; the others as tollgate.toml has them for a cache. */
    constructor(now, { entries = 1_000, bytes = 8 << 20, strategy = 'request' } = {}) {
        this.#now = now;
        this.#most = { entries, bytes };
        [this.#ttlMs, this.#priority] = STRATEGIES[strategy];
    }

    getMany(keys) {
        return keys.map((key) => {
            const value = this.#value(key);
            this.#counts[value === undefined ? 'misses' : 'hits'] += 1;
            return value;
        });
    }

    setMany(entries, ttlMs = this.#ttlMs, priority = this.#priority) {
        const expires = this.#now() + ttlMs;
        for (const [key, value] of entries) {
            this.delete(key);
            this.#rooms[priority].set(key, { value, expires, bytes: bytesOf(key) + value.length + OVERHEAD_BYTES });
        }
        this.#counts.expired += this.#rooms[priority].shrink(this.#most, this.#now());
    }

    delete(key) {
        for (const room of Object.values(this.#rooms)) room.delete(key);
    }

    stats() {
        const rooms = Object.values(this.#rooms);
        const total = (of) => rooms.reduce((sum, room) => sum + of(room), 0);
        const [entries, bytes] = [total((room) => room.entries.size), total((room) => room.bytes)];
        return { ...this.#counts, entries, bytes, ttlMs: this.#ttlMs };
    }

    #value(key) {
        const room = Object.values(this.#rooms).find(({ entries }) => entries.has(key));
        const entry = room?.entries.get(key);
        if (!entry) return undefined;
        room.delete(key);
        if (entry.expires <= this.#now()) {
            this.#counts.expired += 1;
            return undefined;
        }
        // The last one in the order of a Map is the one used last.
        room.set(key, entry);
        return entry.value;
    }
}

class Room {
    entries = new Map();
    bytes = 0;

    set(key, entry) {
        this.entries.set(key, entry);
        this.bytes += entry.bytes;
    }

    delete(key) {
        this.bytes -= this.entries.get(key)?.bytes ?? 0;
        this.entries.delete(key);
    }

    /** Makes place; answers how many had expired. */
    shrink(most, now) {
        let expired = 0;
        const full = () => this.entries.size > most.entries || this.bytes > most.bytes;
        if (!full()) return expired;
        for (const [key, { expires }] of this.entries) {
            if (expires > now) continue;
            this.delete(key);
            expired += 1;
        }
        for (const key of this.entries.keys()) {
            if (!full()) break;
            this.delete(key);
        }
        return expired;
    }
}
