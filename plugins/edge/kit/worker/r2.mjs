// Containers of blobs in R2. Its entity tags are MD5 sums, and of an object that came in parts a tag of their own.

import { holds } from '../blob.mjs';
import { StorageError } from '../errors.mjs';
import { OBJECT_BYTES } from '../limits.mjs';

/** Bytes of a part of an upload: R2 wants all of them alike but the last, and at least 5 MiB. */
const PART_BYTES = 8 << 20;

export class R2Engine {
    #bucket;

    constructor(bucket, { objectBytes = OBJECT_BYTES } = {}) {
        this.objectBytes = objectBytes;
        this.#bucket = bucket;
    }

    async head(key) {
        const found = await this.#bucket.head(key);
        return found ? info(found) : undefined;
    }

    async open(key, precondition, range) {
        const present = await this.#bucket.head(key);
        if (!present) return precondition.ifMatch ? { tag: 'unmet' } : { tag: 'absent' };
        const [offset, length] = holds(precondition, present.etag) ? range(present.size) : [0, present.size];
        const onlyIf = conditions(precondition);
        // Pinned to the object that the range was computed of.
        if (!precondition.ifMatch) onlyIf.set('if-match', present.httpEtag);
        const part = length === present.size ? {} : { range: { offset, length } };
        const found = await this.#bucket.get(key, { onlyIf, ...part });
        if (!found) return { tag: 'absent' };
        if (found.etag !== present.etag) throw new StorageError('unavailable', 'the object changes; read it again');
        if (!('body' in found)) return { tag: 'unmet', val: info(found) };
        return { tag: 'found', val: { info: info(found), offset, length, ...pieces(found.body) } };
    }

    async put(key, content, options) {
        const written = await this.#bucket.put(key, content, {
            ...described(options),
            onlyIf: conditions(options.precondition),
        });
        if (!written) throw new StorageError('conflict');
        return info(written);
    }

    /** What fits into a part is put at once, as `put` does; more goes in parts, of which R2 knows no precondition. */
    async write(key, options) {
        const parts = [];
        let rest = [];
        let size = 0;
        let upload;
        const flush = async () => {
            const whole = joined(rest, size);
            upload ??= await this.#begin(key, options);
            for (let at = 0; at + PART_BYTES <= size; at += PART_BYTES) {
                parts.push(await upload.uploadPart(parts.length + 1, whole.subarray(at, at + PART_BYTES)));
            }
            rest = [whole.slice(size - (size % PART_BYTES))];
            size %= PART_BYTES;
        };
        return {
            write: async (bytes) => {
                rest.push(bytes.slice());
                size += bytes.length;
                if (size > PART_BYTES) await flush();
            },
            finish: async () => {
                if (!upload) return this.put(key, joined(rest, size), options);
                if (size > 0) parts.push(await upload.uploadPart(parts.length + 1, joined(rest, size)));
                return info(await upload.complete(parts));
            },
            abort: () => upload?.abort().catch(() => undefined),
        };
    }

    /** R2 does not tell what it removed, so whether there was one is what a look before saw. */
    async delete(key, precondition) {
        if (precondition.ifMatch || precondition.ifNoneMatch) {
            throw new StorageError('unavailable', 'R2 removes objects without precondition only');
        }
        return (await this.deleteMany([key])) === 1;
    }

    async deleteMany(keys) {
        const present = await Promise.all(keys.map((key) => this.#bucket.head(key)));
        await this.#bucket.delete(keys);
        return present.filter(Boolean).length;
    }

    async list(prefix, delimiter, cursor, limit) {
        const include = ['httpMetadata', 'customMetadata'];
        const page = await this.#bucket.list({ prefix, delimiter, cursor, limit, include });
        return {
            objects: page.objects.map(info),
            prefixes: page.delimitedPrefixes,
            cursor: page.truncated ? page.cursor : undefined,
        };
    }

    #begin(key, options) {
        if (options.precondition.ifMatch || options.precondition.ifNoneMatch) {
            throw new StorageError('unavailable', `R2 takes more than ${PART_BYTES} bytes without precondition only`);
        }
        return this.#bucket.createMultipartUpload(key, described(options));
    }
}

/** A precondition as HTTP writes it, which takes several tags where R2's own way takes one. */
function conditions({ ifMatch, ifNoneMatch }) {
    const headers = new Headers();
    const write = (name, { tag, val }) => {
        // No object has the tag of an empty list.
        const tags = tag === 'any' ? ['*'] : val.length === 0 ? ['"-"'] : val.map((etag) => `"${etag}"`);
        headers.set(name, tags.join(', '));
    };
    if (ifMatch) write('if-match', ifMatch);
    if (ifNoneMatch) write('if-none-match', ifNoneMatch);
    return headers;
}

function described({ contentType, cacheControl, metadata }) {
    const customMetadata = Object.fromEntries(metadata);
    if (Object.keys(customMetadata).length !== metadata.length) {
        throw new StorageError('invalid', 'R2 keeps one value under a name of metadata');
    }
    return { httpMetadata: { contentType, cacheControl }, customMetadata };
}

function info({ key, size, etag, uploaded, httpMetadata, customMetadata }) {
    return {
        key,
        size: BigInt(size),
        etag,
        uploadedMs: BigInt(uploaded.getTime()),
        contentType: httpMetadata?.contentType ?? 'application/octet-stream',
        cacheControl: httpMetadata?.cacheControl,
        metadata: Object.entries(customMetadata ?? {}),
    };
}

/** A stream in pieces of the length asked, or shorter. */
function pieces(body) {
    const stream = body.getReader();
    let rest = new Uint8Array();
    const read = async (most) => {
        while (rest.length === 0) {
            const { done, value } = await stream.read();
            if (done) return rest;
            rest = value;
        }
        const piece = rest.subarray(0, most);
        rest = rest.subarray(piece.length);
        return piece;
    };
    return { read, close: () => void stream.cancel().catch(() => undefined) };
}

function joined(pieces, size) {
    const whole = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
        whole.set(piece, at);
        at += piece.length;
    }
    return whole;
}
