// Calls the hooks of a component, in whatever runtime this is.

/** One call of a started component: its answer as a case writes it. */
export async function callHook(wit, component, { function: name, arguments: values }) {
    const { id, params, result: type } = wit.find('tollgate:policy', name);
    const types = wit.result(type);
    try {
        const value = await component[id][name](...params.map((param, at) => wit.toGuest(param.type, values[at])));
        return types ? { ok: wit.fromGuest(types.ok, value) } : wit.fromGuest(type, value);
    } catch (error) {
        if (!types || !(error instanceof Object && 'payload' in error)) return { failed: String(error?.stack ?? error) };
        return { err: wit.fromGuest(types.err, error.payload) };
    }
}
