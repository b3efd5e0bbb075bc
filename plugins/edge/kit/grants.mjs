// What of the stores is granted to whom.

import { explained, StorageError } from './errors.mjs';

/** The engine and the grant of a name that a plugin opens, or the error that `open` gives. `engines`: a Map by name. */
export function granted(engines, grants, name) {
    if (!grants || !Object.hasOwn(grants, name)) {
        throw new StorageError(engines.has(name) ? 'access-denied' : 'no-such-store');
    }
    if (!engines.has(name)) throw new StorageError('no-such-store');
    return { engine: guarded(engines.get(name)), grant: grants[name] };
}

/** An engine all of whose failures are errors that a plugin can branch on. */
export function guarded(engine) {
    return new Proxy(engine, {
        get(_, name) {
            const found = engine[name];
            return typeof found === 'function' ? (...values) => explained(() => found.apply(engine, values)) : found;
        },
    });
}

/** Refuses a change by who may only read. */
export function writes(grant) {
    if (grant === 'read') throw new StorageError('access-denied');
}
