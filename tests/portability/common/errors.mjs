// The errors of `tollgate:storage/types`.

/** jco takes the `payload` of a thrown error for the error of a WIT result; any other exception is a trap. */
export class StorageError extends Error {
    constructor(tag, text) {
        super(text ?? tag);
        this.payload = text === undefined ? { tag } : { tag, val: text };
    }
}
