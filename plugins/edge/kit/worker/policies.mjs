// The plugins of a project in a Worker.

import { Contracts } from '../contracts.mjs';
import { Plugin } from '../plugin.mjs';
import { Policies } from '../policies.mjs';
import { durableEngine } from './durable.mjs';
import { stores } from './stores.mjs';

/** Versions that were prepared, as far as this instance of the Worker knows. */
const ready = new Set();

/** The plugins by name, for one request: an instance that requests share hangs when they overlap. */
export function pluginsOf(project, env, now = Date.now) {
    const contracts = new Contracts(project.contracts);
    const engines = stores(env, project.stores, now);
    const started = project.plugins.map((about) => new Plugin(contracts, about, project.made[about.name], engines, false));
    return new Map(started.map((plugin) => [plugin.about.name, plugin]));
}

/** The plugins as a gateway uses them, for one event of the Worker. `project`: the module build/project.mjs. */
export function policies(project, env, now = Date.now) {
    return new Policies([...pluginsOf(project, env, now).values()], {
        turns: durableEngine(env.TOLLGATE, 'kv', 'tollgate/turns', now),
        queue: durableEngine(env.TOLLGATE, 'queue', 'tollgate/events', now),
        ready,
        now,
    });
}
