// Makes the calls of cases, in whatever runtime this is.

import { camel } from '../tollgate/contracts.mjs';
import { fromHex } from '../tollgate/hex.mjs';
import { storage } from '../tollgate/plugin.mjs';

/** What a step names in place of a plugin to call a function of a store itself, and the resource that has it. */
const RESOURCES = { kv: 'store', sql: 'database', blob: 'container', vector: 'index', cache: 'cache' };

/** One call, as a case writes its answer. `plugins`: by name; `engines`: Maps by kind and name. */
export async function call(contracts, plugins, engines, step) {
    if (step.plugin in RESOURCES) return callStore(contracts, engines, step);
    try {
        const found = await plugins.get(step.plugin).call(step.function, ...step.arguments);
        const { result } = contracts.find('tollgate:policy', step.function);
        return contracts.result(result) ? { ok: found } : found;
    } catch (error) {
        return error.text === undefined ? { failed: String(error.cause?.stack ?? error.stack) } : { err: error.text };
    }
}

async function callStore(contracts, engines, { plugin: kind, function: name, arguments: [store, ...values] }) {
    const resource = RESOURCES[kind];
    const everything = Object.fromEntries([...engines[kind].keys()].map((store) => [store, 'read-write']));
    const Resource = storage(engines, { [kind]: everything })[`tollgate:storage/${kind}`][capital(resource)];
    if (kind === 'blob' && name in STREAMS) return STREAMS[name](contracts, await Resource.open(store), values);
    const { params, result } = contracts.find('tollgate:storage', `[method]${resource}.${name}`);
    const [, ...own] = params;
    const types = contracts.result(result);
    try {
        const opened = await Resource.open(store);
        const found = await opened[camel(name)](...own.map(({ type }, at) => contracts.toGuest(type, values[at])));
        return { ok: contracts.fromGuest(types.ok, found) };
    } catch (error) {
        if (!('payload' in error)) return { failed: String(error.stack) };
        return { err: contracts.fromGuest(types.err, error.payload) };
    }
}

/** Calls that open a reader or a writer, as cases see them: of the whole, with pieces in between. */
const STREAMS = {
    async read(contracts, container, [key, options]) {
        const { params, result } = contracts.find('tollgate:storage', '[method]container.get');
        const opened = await container.read(key, contracts.toGuest(params[2].type, options));
        if (opened.tag === 'found') opened.val = await readObject(opened.val);
        return { ok: contracts.fromGuest(contracts.result(result).ok, opened) };
    },

    async write(contracts, container, [key, pieces, options]) {
        const { params, result } = contracts.find('tollgate:storage', '[method]container.put');
        const types = contracts.result(result);
        try {
            const writer = await container.write(key, contracts.toGuest(params[3].type, options));
            for (const piece of pieces) await writer.write(fromHex(piece));
            return { ok: contracts.fromGuest(types.ok, await writer.finish()) };
        } catch (error) {
            return { err: contracts.fromGuest(types.err, error.payload) };
        }
    },
};

async function readObject(reader) {
    const [offset] = await reader.range();
    const content = [];
    for (;;) {
        const piece = await reader.read(3);
        if (piece.length === 0) break;
        content.push(...piece);
    }
    const info = await reader.info();
    reader[Symbol.dispose]();
    return { info, offset, content };
}

function capital(name) {
    return name[0].toUpperCase() + name.slice(1);
}
