// A plugin: its component, started over the stores that it is granted, and its hooks.

import { blob } from './blob.mjs';
import { cache } from './cache.mjs';
import { printable } from './check.mjs';
import { camel } from './contracts.mjs';
import { kv } from './kv.mjs';
import { sql } from './sql.mjs';
import { vector } from './vector.mjs';
import { wasi } from './wasi.mjs';

const INTERFACES = { kv, sql, blob, vector, cache };

/** The interfaces of `tollgate:storage` for somebody with these grants. `stores`: Maps of engines by kind. */
export function storage(stores, grants) {
    const kinds = Object.entries(INTERFACES);
    return Object.fromEntries(kinds.map(([kind, serve]) => [`tollgate:storage/${kind}`, serve(stores[kind], grants[kind])]));
}

/** A hook that answered with an error of its own (`text`), or failed in another way (`cause`). */
export class PluginError extends Error {
    constructor(plugin, hook, { text, cause }) {
        super(printable(`plugin ${plugin}: ${hook}: ${text ?? cause?.message ?? cause}`), { cause });
        this.text = text;
    }
}

export class Plugin {
    #contracts;
    #made;
    #imports;
    #idle = [];

    /**
     * `about`: its entry in plugins.json; `made`: what it was made into, `instantiate` and `core`, which gives a core module by
     * its name; `stores`: Maps of engines by kind; `keep`: whether an instance serves one call after another.
     */
    constructor(contracts, about, made, stores, keep) {
        this.#contracts = contracts;
        this.about = about;
        this.#made = { ...made, keep };
        const types = { 'tollgate:storage/types': {} };
        this.#imports = { ...wasi(about.name, about.config), ...types, ...storage(stores, about.grants) };
    }

    has(hook) {
        return this.about.hooks.includes(hook);
    }

    /** Calls a function of a hook; values as the cases of plugins write them. Fails with a `PluginError`. */
    async call(name, ...values) {
        const { id, params, result } = this.#contracts.find('tollgate:policy', name);
        const types = this.#contracts.result(result);
        try {
            const passed = params.map(({ type }, at) => this.#contracts.toGuest(type, values[at]));
            const found = await this.#run((instance) => instance[id][camel(name)](...passed));
            return this.#contracts.fromGuest(types ? types.ok : result, found);
        } catch (cause) {
            const text = types && isError(cause) ? this.#contracts.fromGuest(types.err, cause.payload) : undefined;
            throw new PluginError(this.about.name, name, { text, cause });
        }
    }

    /** An instance serves one call at a time, and none after it has failed without an error of its own. */
    async #run(call) {
        const { instantiate, core, keep } = this.#made;
        const instance = this.#idle.pop() ?? (await instantiate(core, this.#imports));
        const back = () => keep && this.#idle.push(instance);
        try {
            const found = await call(instance);
            back();
            return found;
        } catch (error) {
            if (isError(error)) back();
            throw error;
        }
    }
}

/** Whether it is the error of a WIT result. */
function isError(error) {
    return error instanceof Object && 'payload' in error;
}
