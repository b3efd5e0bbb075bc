// The cases in Node. Reads what to do from a file and prints what came of it.
//
//     node node/main.mjs input.json

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { callHook, drive } from '../common/cases.mjs';
import { kv } from '../common/kv.mjs';
import { sql } from '../common/sql.mjs';
import { prepare } from '../common/transpile.mjs';
import { Wit, wide } from '../common/wit.mjs';
import { MapEngine } from './kv.mjs';
import { SqliteEngine } from './sql.mjs';

const { wit: resolve, plugins, cases, folder } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const wit = new Wit(resolve);
const transcript = { digests: {}, cases: {} };
const components = {};
for (const [name, { path, grants }] of Object.entries(plugins)) {
    const home = join(folder, name);
    const { digest } = await prepare(wit, name, path, home);
    transcript.digests[name] = digest;
    const { instantiate } = await import(pathToFileURL(join(home, `${name}.js`)));
    const coreModule = async (file) => WebAssembly.compile(await readFile(join(home, file)));
    components[name] = (kvEngines, sqlEngines) =>
        instantiate(coreModule, {
            'tollgate:storage/kv': kv(kvEngines, grants.kv),
            'tollgate:storage/sql': sql(sqlEngines, grants.sql),
        });
}
for (const one of cases) transcript.cases[one.name] = await run(one);
process.stdout.write(JSON.stringify(transcript));

async function run({ before, steps, stores, queries }) {
    let now = steps[0].now_ms;
    const engines = (kind, make) =>
        new Map(Object.values(plugins).flatMap(({ grants }) => Object.keys(grants[kind] ?? {}).map((name) => [name, make()])));
    const kvEngines = engines('kv', () => new MapEngine(() => now));
    const sqlEngines = engines('sql', () => new SqliteEngine(':memory:'));
    for (const [store, entries] of Object.entries(before.kv)) {
        const encoded = Object.entries(entries).map(([key, value]) => [key, Buffer.from(JSON.stringify(value))]);
        kvEngines.get(store).setMany(encoded);
    }
    for (const [database, statements] of Object.entries(before.sql)) {
        sqlEngines.get(database).batch(statements.map((text) => ({ sql: text, params: [] })));
    }
    // An instance serves one call after another, as in Tollgate.
    const started = {};
    const answers = await drive(steps, async (step) => {
        now = step.now_ms;
        started[step.plugin] ??= await components[step.plugin](kvEngines, sqlEngines);
        return callHook(wit, started[step.plugin], step);
    });
    const outcome = { answers, kv: {}, sql: {} };
    for (const store of stores) {
        const engine = kvEngines.get(store);
        const { keys } = engine.list('', undefined, 1_000);
        const hex = (entry) => Buffer.from(entry.value).toString('hex');
        const entries = engine.getMany(keys);
        outcome.kv[store] = Object.fromEntries(keys.map((key, at) => [key, hex(entries[at])]));
    }
    for (const [database, texts] of Object.entries(queries)) {
        const rows = (text) => sqlEngines.get(database).query({ sql: text, params: [] }).rows;
        outcome.sql[database] = Object.fromEntries(texts.map((text) => [text, rows(text).map((row) => row.map(cell))]));
    }
    return outcome;
}

function cell({ tag, val }) {
    if (tag === 'blob') return { bytes: Buffer.from(val).toString('hex') };
    return tag === 'integer' ? wide(val) : (val ?? null);
}
