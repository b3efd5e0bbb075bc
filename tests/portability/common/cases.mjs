// Runs the steps of a case, in whatever runtime this is.

/** The answers of all steps, with opaque bytes under their names. `call` makes one call of a plugin. */
export async function drive(steps, call) {
    const opaque = new Map();
    const answers = [];
    for (const step of steps) {
        const answer = await call({ ...step, arguments: handBack(step.arguments, opaque) });
        answers.push(nameOpaque(step.answer, answer, opaque));
    }
    return answers;
}

/** One call of a started component: its answer as a case writes it. */
export async function callHook(wit, component, { function: name, arguments: values }) {
    const { id, params, result: type } = wit.find('tollgate:policy', name);
    const types = wit.result(type);
    try {
        const value = await component[id][name](...params.map((param, at) => wit.toGuest(param.type, values[at])));
        return types ? { ok: wit.fromGuest(types.ok, value) } : wit.fromGuest(type, value);
    } catch (error) {
        if (types && error instanceof Object && 'payload' in error) return { err: wit.fromGuest(types.err, error.payload) };
        return { failed: String(error?.stack ?? error) };
    }
}

/** Puts opaque bytes in the places of their names. */
function handBack(value, opaque) {
    if (isName(value)) return opaque.get(value) ?? value;
    if (Array.isArray(value)) return value.map((item) => handBack(item, opaque));
    return mapFields(value, (item) => handBack(item, opaque));
}

/** Takes opaque bytes under the names that are expected in their places. */
function nameOpaque(expected, found, opaque) {
    if (isName(expected) && typeof found === 'string') {
        opaque.set(expected, found);
        return expected;
    }
    if (Array.isArray(found)) return found.map((item, at) => nameOpaque(expected?.[at], item, opaque));
    return mapFields(found, (item, key) => nameOpaque(expected?.[key], item, opaque));
}

function isName(value) {
    return typeof value === 'string' && value.startsWith('$');
}

function mapFields(value, change) {
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, change(item, key)]));
}
