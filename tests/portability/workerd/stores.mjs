// Which store lies where.

import { D1Engine as KvD1Engine, SCHEMA } from './kv-d1.mjs';
import { NamespaceEngine } from './kv-namespace.mjs';
import { D1Engine as SqlD1Engine } from './sql.mjs';

/** The bindings that `stores` needs. */
export const BINDINGS = { d1Databases: ['KV_STORES', 'GATEWAY'], kvNamespaces: ['HOT_KEYS'] };

/** The stores by name. `now`: milliseconds since 1970. */
export function stores(env, now) {
    return {
        kv: new Map([
            // Their plugins read and swap.
            ['blacklist', new KvD1Engine(env.KV_STORES, 'blacklist', now)],
            ['quota', new KvD1Engine(env.KV_STORES, 'quota', now)],
            // Written now and then, read often.
            ['hot-keys', new NamespaceEngine(env.HOT_KEYS, now)],
        ]),
        sql: new Map([['gateway', new SqlD1Engine(env.GATEWAY)]]),
    };
}

/** Makes the tables of the key-value stores. */
export async function prepareStores(env) {
    await env.KV_STORES.batch(SCHEMA.map((statement) => env.KV_STORES.prepare(statement)));
}
