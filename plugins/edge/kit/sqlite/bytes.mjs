// Bytes as the runtimes' SQLite gives them: a Uint8Array, an ArrayBuffer or numbers.

export function bytes(value) {
    if (value instanceof Uint8Array) return value;
    return value instanceof ArrayBuffer ? new Uint8Array(value) : Uint8Array.from(value);
}
