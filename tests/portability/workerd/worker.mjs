// One call of a plugin, or of a store itself, for each request to the worker.

import { everything } from '../common/grants.mjs';
import { callHook, callStore, isStore } from '../common/hook.mjs';
import { kv } from '../common/kv.mjs';
import { sql } from '../common/sql.mjs';
import { Wit } from '../common/wit.mjs';
import { stores } from './stores.mjs';

/** A worker of components: by plugin their `instantiate`, core `modules` by name, and `grants`. */
export function worker(resolve, components) {
    const wit = new Wit(resolve);
    return {
        async fetch(request, env) {
            const step = await request.json();
            const engines = stores(env, () => step.now_ms);
            if (isStore(step.plugin)) {
                const resources = {
                    kv: kv(engines.kv, everything(engines.kv)).Store,
                    sql: sql(engines.sql, everything(engines.sql)).Database,
                };
                return Response.json(await callStore(wit, resources[step.plugin], step));
            }
            const { instantiate, modules, grants } = components[step.plugin];
            // A new instance for each request: one that requests share hangs when they overlap.
            const component = await instantiate((name) => modules[name], {
                'tollgate:storage/kv': kv(engines.kv, grants.kv),
                'tollgate:storage/sql': sql(engines.sql, grants.sql),
            });
            return Response.json(await callHook(wit, component, step));
        },
    };
}
