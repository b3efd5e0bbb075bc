// The stores of a project in Cloudflare's own, as stores.json says where each lies.

import { KvEngine, SCHEMA } from '../sqlite/kv.mjs';
import { batchOf, D1Engine } from './d1.mjs';
import { durableEngine } from './durable.mjs';
import { NamespaceEngine } from './kv-namespace.mjs';
import { R2Engine } from './r2.mjs';

/** The binding of the Durable Object. */
const OBJECTS = 'TOLLGATE';

const ENGINES = {
    kv: {
        'durable-object': (env, name, options, now) => durableEngine(bound(env, OBJECTS), 'kv', name, now),
        d1: (env, name, { binding }, now) => new KvEngine(prepared(bound(env, binding)), name, now),
        kv: (env, name, { binding }, now) => new NamespaceEngine(bound(env, binding), now),
    },
    sql: {
        d1: (env, name, { binding, tableGrants }) => new D1Engine(bound(env, binding), tableGrants),
    },
    blob: {
        r2: (env, name, { binding, ...options }) => new R2Engine(bound(env, binding), options),
    },
    vector: {
        'durable-object': (env, name, options, now) => durableEngine(bound(env, OBJECTS), 'vector', name, now, options),
    },
    cache: {
        'durable-object': (env, name, options, now) => durableEngine(bound(env, OBJECTS), 'cache', name, now, options),
    },
};

/** Maps of engines by kind and name. `config`: stores.json; `now`: milliseconds since 1970. */
export function stores(env, config, now) {
    return Object.fromEntries(
        Object.entries(ENGINES).map(([kind, makers]) => {
            const named = Object.entries(config[kind] ?? {}).map(([name, { in: place, ...options }]) => {
                const make = makers[place];
                if (!make) {
                    const known = Object.keys(makers).join(', ');
                    throw new Error(`stores.json: ${kind}.${name} is in ${place}; a Worker has ${known}`);
                }
                return [name, make(env, name, options, now)];
            });
            return [kind, new Map(named)];
        }),
    );
}

function bound(env, name) {
    if (!env[name]) throw new Error(`wrangler.json binds nothing as ${name}, which stores.json names`);
    return env[name];
}

/** Databases that have the tables of kv stores, as far as this instance of the Worker knows. */
const known = new WeakSet();

function prepared(database) {
    const batch = batchOf(database);
    return async (statements) => {
        if (!known.has(database)) {
            await batch(SCHEMA.map((sql) => [sql, []]));
            known.add(database);
        }
        return batch(statements);
    };
}
