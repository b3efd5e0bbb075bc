// `tollgate:storage/blob` over an engine: what is the same wherever the objects lie, that is, grants, limits and ranges.
//
// An engine has `head(key)`, `open(key, precondition, range)`, `write(key, options)`, `put(key, content, options)`,
// `delete(key, precondition)`, `deleteMany(keys)` and `list(prefix, delimiter, cursor, limit)`. `range` is a function that
// answers `[offset, length]` for a size; what is opened has `read(most)` and `close()`, what is written `write(bytes)`,
// `finish()` and `abort()`.

import { bytesOf, checkedNames, fits, pageLimit, sum, valid } from './check.mjs';
import { explained, StorageError } from './errors.mjs';
import { granted, writes } from './grants.mjs';
import * as limits from './limits.mjs';

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: `read` or `read-write` by name. */
export function blob(engines, grants) {
    let readers = 0;
    let writers = 0;

    class Reader {
        #opened;

        static of(opened) {
            fits(readers < limits.READERS, 'the number of open readers');
            readers += 1;
            const reader = new Reader();
            reader.#opened = opened;
            return reader;
        }

        async info() {
            return this.#opened.info;
        }

        async range() {
            return [BigInt(this.#opened.offset), BigInt(this.#opened.length)];
        }

        async read(most) {
            return explained(() => this.#opened.read(pageLimit(most, limits.BLOB_PIECE_BYTES)));
        }

        [Symbol.dispose]() {
            readers -= 1;
            this.#opened.close();
        }
    }

    class Writer {
        #engine;
        #upload;
        #size = 0;

        static of(engine, upload) {
            fits(writers < limits.WRITERS, 'the number of open writers');
            writers += 1;
            const writer = new Writer();
            [writer.#engine, writer.#upload] = [engine, upload];
            return writer;
        }

        async write(bytes) {
            valid(this.#upload, 'the object is finished, or its writer failed');
            this.#size += bytes.length;
            await this.#step(async () => {
                fits(this.#size <= this.#engine.objectBytes, 'the object');
                await this.#upload.write(bytes);
            });
        }

        async finish() {
            valid(this.#upload, 'the object is finished, or its writer failed');
            const info = await this.#step(() => this.#upload.finish());
            this.#upload = undefined;
            return info;
        }

        /** After an error the writer is of no use any more. */
        async #step(step) {
            try {
                return await explained(step);
            } catch (error) {
                this.#upload.abort();
                this.#upload = undefined;
                throw error;
            }
        }

        [Symbol.dispose]() {
            writers -= 1;
            this.#upload?.abort();
        }
    }

    class Container {
        #engine;
        #grant;

        static async open(name) {
            const container = new Container();
            ({ engine: container.#engine, grant: container.#grant } = granted(engines, grants, name));
            return container;
        }

        async put(key, content, options) {
            const engine = this.#writable();
            fits(content.length <= engine.objectBytes, 'the object');
            return engine.put(checkedKey(key), content, checkedOptions(options));
        }

        async get(key, { range, precondition }) {
            const found = await this.#open(key, range, precondition);
            if (found.tag !== 'found') return found;
            const opened = found.val;
            try {
                fits(opened.length <= limits.BLOB_GET_BYTES, 'the content');
                const content = await explained(() => readAll(opened));
                return { tag: 'found', val: { info: opened.info, offset: BigInt(opened.offset), content } };
            } finally {
                opened.close();
            }
        }

        async head(key) {
            return this.#engine.head(checkedKey(key));
        }

        async delete(key, precondition) {
            const engine = this.#writable();
            return engine.delete(checkedKey(key), checkedCondition(precondition));
        }

        async deleteMany(keys) {
            const engine = this.#writable();
            checkedNames(keys, limits.LIST_ITEMS, limits.BLOB_KEY_BYTES, 'a key');
            return engine.deleteMany([...new Set(keys)]);
        }

        async listObjects({ prefix, delimiter, cursor, limit }) {
            fits(bytesOf(delimiter ?? '') <= limits.DELIMITER_BYTES, 'the delimiter');
            valid(delimiter !== '', 'a delimiter is not empty');
            const most = pageLimit(limit, limits.LIST_ITEMS);
            return this.#engine.list(prefix ?? '', delimiter, cursor, most);
        }

        async read(key, { range, precondition }) {
            const found = await this.#open(key, range, precondition);
            return found.tag === 'found' ? { tag: 'found', val: Reader.of(found.val) } : found;
        }

        async write(key, options) {
            const engine = this.#writable();
            const upload = await engine.write(checkedKey(key), checkedOptions(options));
            return Writer.of(engine, upload);
        }

        #open(key, range, precondition) {
            const part = (size) => resolve(range, size);
            return this.#engine.open(checkedKey(key), checkedCondition(precondition), part);
        }

        #writable() {
            writes(this.#grant);
            return this.#engine;
        }
    }

    return { Container, Reader, Writer };
}

/** Whether a precondition holds for an object with this tag; none: for no object. */
export function holds({ ifMatch, ifNoneMatch }, etag) {
    const have = (etags) => etag !== undefined && (etags.tag === 'any' || etags.val.includes(etag));
    return (ifMatch === undefined || have(ifMatch)) && (ifNoneMatch === undefined || !have(ifNoneMatch));
}

/** Where the part that was asked begins in an object of this size, and how long it is. */
function resolve(range, size) {
    if (range === undefined) return [0, size];
    let [start, end] = [Math.max(size - Number(range.val), 0), size];
    if (range.tag === 'part') {
        start = Number(range.val.offset);
        end = range.val.length === undefined ? size : Math.min(start + Number(range.val.length), size);
    }
    valid(start < size && end > start, `the range is outside of the object, which has ${size} bytes`);
    return [start, end - start];
}

async function readAll(opened) {
    const content = new Uint8Array(opened.length);
    let at = 0;
    while (at < content.length) {
        const piece = await opened.read(limits.BLOB_PIECE_BYTES);
        if (piece.length === 0) throw new StorageError('unavailable', 'the object ends early');
        content.set(piece, at);
        at += piece.length;
    }
    return content;
}

function checkedKey(key) {
    return checkedNames([key], 1, limits.BLOB_KEY_BYTES, 'a key')[0];
}

function checkedCondition(precondition) {
    for (const etags of [precondition.ifMatch, precondition.ifNoneMatch]) {
        fits((etags?.val ?? []).length <= limits.ETAGS, 'the precondition');
    }
    return precondition;
}

function checkedOptions({ contentType, cacheControl, metadata, precondition }) {
    for (const text of [contentType, cacheControl]) {
        fits((text ?? '').length <= limits.HEADER_BYTES, 'a content type or cache control');
        valid(/^[ -~]*$/.test(text ?? ''), 'a content type and a cache control are printable ASCII');
    }
    fits(metadata.length <= limits.METADATA_ENTRIES, 'the metadata');
    fits(sum(metadata, ([name, value]) => bytesOf(name) + bytesOf(value)) <= limits.METADATA_BYTES, 'the metadata');
    for (const [name] of metadata) {
        valid(/^[a-z0-9-]+$/.test(name), 'a name of metadata is of a-z, 0-9 and -');
        fits(name.length <= limits.METADATA_NAME_BYTES, 'a name of metadata');
    }
    return {
        contentType: contentType ?? 'application/octet-stream',
        cacheControl,
        metadata,
        precondition: checkedCondition(precondition),
    };
}
