// The stores of a project in Node: SQLite and files in one folder, as stores.json says where each lies.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { EventQueue, SCHEMA as EVENTS } from '../events.mjs';
import { MemoryCache } from '../memory-cache.mjs';
import { KvEngine, SCHEMA as KV } from '../sqlite/kv.mjs';
import { SCHEMA as VECTOR, VectorEngine } from '../sqlite/vector.mjs';
import { FileEngine } from './blob.mjs';
import { batchOf, openFile, SqliteEngine } from './sqlite.mjs';

/** Where each kind of store lies. */
const PLACES = { kv: 'sqlite', sql: 'sqlite', blob: 'files', vector: 'sqlite', cache: 'memory' };

export class NodeStores {
    #folder;
    #batch;
    #open = [];

    /** `folder`: where the data is; only one process may have it. `config`: stores.json; `now`: milliseconds since 1970. */
    constructor(folder, config, now) {
        this.#folder = folder;
        mkdirSync(folder, { recursive: true });
        const file = openFile(join(folder, 'stores.sqlite'));
        this.#open.push(file);
        this.#batch = batchOf(file);
        this.#batch([...KV, ...VECTOR, ...EVENTS].map((sql) => [sql, []]));
        this.queue = new EventQueue(this.#batch, now);
        this.turns = new KvEngine(this.#batch, 'tollgate/turns', now);
        const make = {
            kv: (name) => new KvEngine(this.#batch, name, now),
            sql: (name) => this.#database(name),
            blob: (name, options) => new FileEngine(this.#batch, name, this.#path('blob', name), now, options),
            vector: (name, options) => new VectorEngine(this.#batch, name, options),
            cache: (name, options) => new MemoryCache(now, options),
        };
        /** Maps of engines by kind and name. */
        this.engines = Object.fromEntries(
            Object.entries(make).map(([kind, make]) => {
                const named = Object.entries(config[kind] ?? {}).map(([name, { in: place, ...options }]) => {
                    if (place === PLACES[kind]) return [name, make(name, options)];
                    throw new Error(`stores.json: ${kind}.${name} is in ${place}; Node has ${PLACES[kind]}`);
                });
                return [kind, new Map(named)];
            }),
        );
    }

    close() {
        for (const file of this.#open) file.close();
    }

    #database(name) {
        const engine = new SqliteEngine(this.#path('sql', `${name}.sqlite`));
        this.#open.push(engine);
        return engine;
    }

    /** A path of a store; the name of one has no slash, and could be `..`. */
    #path(kind, name) {
        mkdirSync(join(this.#folder, kind), { recursive: true });
        return join(this.#folder, kind, `_${encodeURIComponent(name)}`);
    }
}
