// Calls the functions of the contracts, in whatever runtime this is.

import { camel } from './wit.mjs';

/** One call of a hook of a started component: its answer as a case writes it. */
export function callHook(wit, component, { function: name, arguments: values }) {
    const { id, params, result } = wit.find('tollgate:policy', name);
    return answer(wit, result, () => component[id][name](...passed(wit, params, values)));
}

/** What a step names in place of a plugin to call a function of a store itself, and the resource that has it. */
const STORES = { kv: 'store', sql: 'database' };

export function isStore(name) {
    return name in STORES;
}

/** One call of a function of a store itself. `Resource`: the class that components are given. */
export function callStore(wit, Resource, { plugin, function: name, arguments: [store, ...values] }) {
    const { params, result } = wit.find('tollgate:storage', `[method]${STORES[plugin]}.${name}`);
    const [, ...own] = params;
    return answer(wit, result, async () => (await Resource.open(store))[camel(name)](...passed(wit, own, values)));
}

function passed(wit, params, values) {
    return params.map(({ type }, at) => wit.toGuest(type, values[at]));
}

async function answer(wit, type, call) {
    const types = wit.result(type);
    try {
        const value = await call();
        return types ? { ok: wit.fromGuest(types.ok, value) } : wit.fromGuest(type, value);
    } catch (error) {
        if (!types || !(error instanceof Object && 'payload' in error)) return { failed: String(error?.stack ?? error) };
        return { err: wit.fromGuest(types.err, error.payload) };
    }
}
