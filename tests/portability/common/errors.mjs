// The errors of `tollgate:storage/types`.

/** jco takes the `payload` of a thrown error for the error of a WIT result; any other exception is a trap. */
export class StorageError extends Error {
    constructor(tag, text) {
        super(text ?? tag);
        this.payload = text === undefined ? { tag } : { tag, val: text };
    }
}

/** What was granted under a name, or the error that `open` gives. */
export function granted(known, grants, name) {
    if (grants && name in grants) return grants[name];
    throw new StorageError(known.has(name) ? 'access-denied' : 'no-such-store');
}
