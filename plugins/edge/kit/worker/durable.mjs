// A Durable Object for what must be atomic: each store of a name in one object, with SQLite of its own.

import { DurableObject } from 'cloudflare:workers';

import { StorageError } from '../errors.mjs';
import { EventQueue, SCHEMA as EVENTS } from '../events.mjs';
import { MemoryCache } from '../memory-cache.mjs';
import { KvEngine, SCHEMA as KV } from '../sqlite/kv.mjs';
import { SCHEMA as VECTOR, VectorEngine } from '../sqlite/vector.mjs';

/** What each kind of store needs in the database, how it is made, and what of it is called from outside. */
const KINDS = {
    kv: {
        schema: KV,
        make: (batch, now) => new KvEngine(batch, '', now),
        methods: ['getMany', 'setMany', 'deleteMany', 'list', 'increment', 'swap'],
    },
    vector: {
        schema: VECTOR,
        make: (batch, now, options) => new VectorEngine(batch, '', options),
        methods: ['write', 'getMany', 'deleteMany', 'query', 'describe'],
    },
    cache: {
        schema: [],
        make: (batch, now, options) => new MemoryCache(now, options),
        methods: ['getMany', 'setMany', 'delete', 'stats'],
    },
    queue: {
        schema: EVENTS,
        make: (batch, now) => new EventQueue(batch, now),
        methods: ['append', 'next', 'done', 'tried', 'setAside'],
    },
};

export class TollgateStore extends DurableObject {
    #engine;
    #now;

    /** One call of the store; a new object becomes one of the kind of its first call. Its answer is `{ ok }` or `{ error }`. */
    async call({ kind, options, now, method }, values) {
        this.#now = now;
        this.#engine ??= this.#make(kind, options);
        try {
            // Reads the time before it waits for anything.
            return { ok: await this.#engine[method](...values) };
        } catch (error) {
            if (error instanceof StorageError) return { error: error.payload };
            throw error;
        }
    }

    #make(kind, options) {
        const { sql } = this.ctx.storage;
        for (const statement of KINDS[kind].schema) sql.exec(statement);
        const batch = (statements) =>
            this.ctx.storage.transactionSync(() => statements.map(([text, params]) => sql.exec(text, ...params).toArray()));
        return KINDS[kind].make(batch, () => this.#now, options);
    }
}

/** The engine of a store that lies in an object of its own. `namespace`: the binding of `TollgateStore`. */
export function durableEngine(namespace, kind, name, now, options = {}) {
    const object = namespace.get(namespace.idFromName(`${kind}/${name}`));
    const engine = { indexed: [], ...options };
    for (const method of KINDS[kind].methods) {
        engine[method] = async (...values) => {
            const { ok, error } = await called(object, { kind, options, now: now(), method }, values);
            if (error) throw new StorageError(error.tag, error.val);
            return ok;
        };
    }
    return engine;
}

/** What goes wrong on the way is no fault of the plugin. */
async function called(object, what, values) {
    try {
        return await object.call(what, values);
    } catch (error) {
        return { error: { tag: 'unavailable', val: String(error?.message ?? error) } };
    }
}
