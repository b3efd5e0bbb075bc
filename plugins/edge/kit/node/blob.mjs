// Containers of blobs in Node: each content in a file of its own, what belongs to it in SQLite.
//
// A file is written under a name that nothing has had before and is on disk before its row says that it counts. A reader
// has the file open, so that it reads on when the object has been replaced and the file removed.

import { createHash, randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { holds } from '../blob.mjs';
import { StorageError } from '../errors.mjs';
import { OBJECT_BYTES } from '../limits.mjs';

/** Names are compared by their UTF-8 bytes, as SQLite does where nothing else is said. */
const SCHEMA = `CREATE TABLE IF NOT EXISTS blob (
    container TEXT NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    uploaded_ms INTEGER NOT NULL, content_type TEXT NOT NULL, cache_control TEXT, metadata TEXT NOT NULL,
    PRIMARY KEY (container, key)) WITHOUT ROWID`;

const GET = 'SELECT * FROM blob WHERE container = ?1 AND key = ?2';
const PUT = 'INSERT OR REPLACE INTO blob VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)';
const DELETE = 'DELETE FROM blob WHERE container = ?1 AND key = ?2 RETURNING file';
/** The next behind ?2 with the prefix ?3; none of those that begin with ?4. */
const NEXT = `SELECT * FROM blob WHERE container = ?1 AND key > ?2 AND key >= ?3 AND substr(key, 1, length(?3)) = ?3
    AND (?4 IS NULL OR substr(key, 1, length(?4)) <> ?4) ORDER BY key LIMIT 1`;

export class FileEngine {
    #batch;
    #container;
    #folder;
    #now;

    /** `batch`: as for engines over SQLite; `folder`: of this container alone; `now`: milliseconds since 1970. */
    constructor(batch, container, folder, now, { objectBytes = OBJECT_BYTES } = {}) {
        this.objectBytes = objectBytes;
        [this.#batch, this.#container, this.#folder, this.#now] = [batch, container, folder, now];
        mkdirSync(folder, { recursive: true });
        batch([[SCHEMA, []]]);
        this.#clean();
    }

    head(key) {
        const row = this.#row(key);
        return row && info(row);
    }

    open(key, precondition, range) {
        const row = this.#row(key);
        if (!holds(precondition, row?.etag)) return { tag: 'unmet', val: row && info(row) };
        if (!row) return { tag: 'absent' };
        const [offset, length] = range(row.size);
        const file = openSync(join(this.#folder, row.file));
        let at = offset;
        const read = (most) => {
            const piece = new Uint8Array(Math.min(most, offset + length - at));
            const got = piece.length === 0 ? 0 : readSync(file, piece, 0, piece.length, at);
            at += got;
            return piece.subarray(0, got);
        };
        return { tag: 'found', val: { info: info(row), offset, length, read, close: () => closeSync(file) } };
    }

    put(key, content, options) {
        const upload = this.write(key, options);
        upload.write(content);
        return upload.finish();
    }

    write(key, options) {
        this.#check(key, options.precondition);
        const name = randomUUID();
        const path = join(this.#folder, name);
        const file = openSync(path, 'wx');
        const hash = createHash('sha256');
        let size = 0;
        const abort = () => {
            closeSync(file);
            rmSync(path, { force: true });
        };
        const finish = () => {
            this.#check(key, options.precondition);
            fsyncSync(file);
            const { contentType, cacheControl, metadata } = options;
            const about = [hash.digest('hex'), this.#now(), contentType, cacheControl ?? null, JSON.stringify(metadata)];
            const old = this.#row(key);
            this.#batch([[PUT, [this.#container, key, name, size, ...about]]]);
            closeSync(file);
            if (old) this.#remove(old.file);
            return info(this.#row(key));
        };
        const write = (bytes) => {
            for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
            hash.update(bytes);
            size += bytes.length;
        };
        return { write, finish, abort };
    }

    delete(key, precondition) {
        this.#check(key, precondition);
        return this.deleteMany([key]) === 1;
    }

    deleteMany(keys) {
        const removed = this.#batch(keys.map((key) => [DELETE, [this.#container, key]])).flat();
        for (const { file } of removed) this.#remove(file);
        return removed.length;
    }

    list(prefix, delimiter, cursor, limit) {
        const page = { objects: [], prefixes: [], cursor: undefined };
        let last = cursor ?? '';
        for (;;) {
            const passed = common(last, prefix, delimiter) ?? null;
            const row = this.#batch([[NEXT, [this.#container, last, prefix, passed]]])[0][0];
            if (!row) return page;
            if (page.objects.length + page.prefixes.length === limit) return { ...page, cursor: last };
            const shared = common(row.key, prefix, delimiter);
            if (shared === undefined) page.objects.push(info(row));
            else page.prefixes.push(shared);
            last = shared ?? row.key;
        }
    }

    #check(key, precondition) {
        if (!holds(precondition, this.#row(key)?.etag)) throw new StorageError('conflict');
    }

    #row(key) {
        return this.#batch([[GET, [this.#container, key]]])[0][0];
    }

    #remove(file) {
        rmSync(join(this.#folder, file), { force: true });
    }

    /** Files of which no row tells are left from a run that was cut off. */
    #clean() {
        const [rows] = this.#batch([['SELECT file FROM blob WHERE container = ?1', [this.#container]]]);
        const known = new Set(rows.map(({ file }) => file));
        for (const file of readdirSync(this.#folder)) if (!known.has(file)) this.#remove(file);
    }
}

/** What a key begins with up to the delimiter behind the prefix, if it is there. */
function common(key, prefix, delimiter) {
    if (delimiter === undefined || !key.startsWith(prefix)) return undefined;
    const at = key.indexOf(delimiter, prefix.length);
    return at < 0 ? undefined : key.slice(0, at + delimiter.length);
}

function info({ key, size, etag, uploaded_ms, content_type, cache_control, metadata }) {
    return {
        key,
        size: BigInt(size),
        etag,
        uploadedMs: BigInt(uploaded_ms),
        contentType: content_type,
        cacheControl: cache_control ?? undefined,
        metadata: JSON.parse(metadata),
    };
}
