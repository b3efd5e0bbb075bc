// Fills the stores before a case and reads them after it.

import { wide } from '../tollgate/contracts.mjs';
import { fromHex, toHex } from '../tollgate/hex.mjs';

export async function prepareCase(before, engines) {
    for (const [store, entries] of Object.entries(before.kv)) {
        await engines.kv.get(store).setMany(Object.entries(entries).map(([key, value]) => [key, fromHex(value)]));
    }
    for (const [database, statements] of Object.entries(before.sql)) {
        const tables = await engines.sql.get(database).open('read-write');
        await tables.batch(statements.map((sql) => ({ sql, params: [] })));
    }
}

/** All that the stores hold which a case looks into, and the rows of its queries. */
export async function outcomeOf({ stores, queries }, engines) {
    const outcome = { kv: {}, sql: {} };
    for (const store of stores) {
        const engine = engines.kv.get(store);
        const { keys } = await engine.list('', undefined, 1_000);
        const entries = await engine.getMany(keys);
        outcome.kv[store] = Object.fromEntries(keys.map((key, at) => [key, toHex(entries[at].value)]));
    }
    for (const [database, texts] of Object.entries(queries)) {
        outcome.sql[database] = {};
        for (const sql of texts) {
            const tables = await engines.sql.get(database).open('read-write');
            const { rows } = await tables.query({ sql, params: [] });
            outcome.sql[database][sql] = rows.map((row) => row.map(cell));
        }
    }
    return outcome;
}

function cell({ tag, val }) {
    if (tag === 'blob') return { bytes: toHex(val) };
    return tag === 'integer' ? wide(val) : (val ?? null);
}
