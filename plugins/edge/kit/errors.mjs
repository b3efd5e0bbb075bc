// The errors of `tollgate:storage/types`.

/** jco takes the `payload` of a thrown error for the error of a WIT result; any other exception is a trap. */
export class StorageError extends Error {
    constructor(tag, text) {
        super(text ?? tag);
        this.payload = text === undefined ? { tag } : { tag, val: text };
    }
}

/** What goes wrong in a store itself, as the error that a plugin can branch on; it must not become a trap. */
export async function explained(call) {
    try {
        return await call();
    } catch (error) {
        throw error instanceof StorageError ? error : new StorageError('unavailable', String(error?.message ?? error));
    }
}
