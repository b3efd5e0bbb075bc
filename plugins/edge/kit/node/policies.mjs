// The plugins of a project in Node.

import { Contracts } from '../contracts.mjs';
import { Plugin } from '../plugin.mjs';
import { Policies } from '../policies.mjs';
import { NodeStores } from './stores.mjs';

/** The plugins by name, over these engines. Their instances serve one call after another. */
export function pluginsOf(project, engines) {
    const contracts = new Contracts(project.contracts);
    const started = project.plugins.map((about) => new Plugin(contracts, about, project.made[about.name], engines, true));
    return new Map(started.map((plugin) => [plugin.about.name, plugin]));
}

/** The plugins as a gateway uses them, with their data in a folder. `project`: the module build/project.mjs. */
export function policies(project, folder, now = Date.now) {
    const stores = new NodeStores(folder, project.stores, now);
    const { turns, queue } = stores;
    const plugins = [...pluginsOf(project, stores.engines).values()];
    const own = new Policies(plugins, { turns, queue, ready: new Set(), now });
    return { policies: own, close: () => stores.close() };
}
