// What of the stores is granted to whom.

import { StorageError } from './errors.mjs';

/** A grant of every store there is. */
export function everything(engines) {
    return Object.fromEntries([...engines.keys()].map((name) => [name, 'read-write']));
}

/** What was granted under a name, or the error that `open` gives. */
export function granted(known, grants, name) {
    if (grants && name in grants) return grants[name];
    throw new StorageError(known.has(name) ? 'access-denied' : 'no-such-store');
}
