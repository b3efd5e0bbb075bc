// `tollgate:storage/vector` over an engine: what is the same wherever the vectors lie, that is, grants and limits.
//
// An engine has `dimensions`, and `write(vectors, onlyNew)`, `getMany(ids)`, `deleteMany(ids)`, `query(target, options)`,
// where the options have the parsed `filter`, and `describe()`.

import { bytesOf, checkedNames, fits, pageLimit, valid } from './check.mjs';
import { granted, writes } from './grants.mjs';
import * as limits from './limits.mjs';
import { isObject, parseFilter } from './filter.mjs';

/** The interface as a plugin sees it. `engines`: a Map by name; `grants`: `read` or `read-write` by name. */
export function vector(engines, grants) {
    return {
        Index: class Index {
            #engine;
            #grant;

            static async open(name) {
                const index = new Index();
                ({ engine: index.#engine, grant: index.#grant } = granted(engines, grants, name));
                return index;
            }

            async upsert(vectors) {
                await this.#write(vectors, false);
            }

            async insert(vectors) {
                await this.#write(vectors, true);
            }

            async getByIds(ids) {
                return this.#engine.getMany(checkedIds(ids, limits.GET_IDS));
            }

            async deleteByIds(ids) {
                writes(this.#grant);
                return this.#engine.deleteMany(checkedIds(ids, limits.LIST_ITEMS));
            }

            async query(target, { topK, namespace, filter, returnValues, returnMetadata }) {
                const { dimensions, indexed } = this.#engine;
                if (target.tag === 'values') checkedValues(target.val, dimensions);
                else checkedIds([target.val], 1);
                checkedNamespace(namespace);
                const options = { topK: pageLimit(topK, limits.TOP_K), namespace, returnValues, returnMetadata };
                // Parsed here for its errors; an engine elsewhere parses it again.
                parseFilter(filter, indexed);
                return this.#engine.query(target, { ...options, filter });
            }

            async describe() {
                return this.#engine.describe();
            }

            async #write(vectors, onlyNew) {
                writes(this.#grant);
                const ids = checkedIds(
                    vectors.map(({ id }) => id),
                    limits.LIST_ITEMS,
                );
                valid(new Set(ids).size === ids.length, 'two vectors have one id');
                for (const { values, namespace, metadata } of vectors) {
                    checkedValues(values, this.#engine.dimensions);
                    checkedNamespace(namespace);
                    checkedMetadata(metadata);
                }
                await this.#engine.write(vectors, onlyNew);
            }
        },
    };
}

function checkedIds(ids, most) {
    return checkedNames(ids, most, limits.ID_BYTES, 'an id');
}

function checkedNamespace(namespace) {
    if (namespace !== undefined) checkedNames([namespace], 1, limits.NAMESPACE_BYTES, 'a namespace');
}

function checkedValues(values, dimensions) {
    valid(values.length === dimensions, `the index has ${dimensions} dimensions`);
    valid(values.every(Number.isFinite), 'values are finite numbers');
}

function checkedMetadata(metadata) {
    if (metadata === undefined) return;
    fits(bytesOf(metadata) <= limits.VECTOR_METADATA_BYTES, 'the metadata');
    let object;
    try {
        object = JSON.parse(metadata);
    } catch (error) {
        valid(false, `metadata: ${error.message}`);
    }
    valid(isObject(object), 'metadata is a JSON object');
    checkedProperties(object);
}

function checkedProperties(object) {
    for (const [name, value] of Object.entries(object)) {
        valid(!/^\$|[."]/.test(name), 'a name of metadata has no dot, no quote, and no $ at its start');
        fits(bytesOf(name) <= limits.ID_BYTES, 'a name of metadata');
        if (isObject(value)) checkedProperties(value);
    }
}
