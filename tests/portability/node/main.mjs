// The cases in Node. Reads what to do from a file and prints what came of it.
//
//     node node/main.mjs input.json

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { drive } from '../common/cases.mjs';
import { outcomeOf, prepareCase } from '../common/contents.mjs';
import { everything } from '../common/grants.mjs';
import { callHook, callStore, isStore } from '../common/hook.mjs';
import { kv } from '../common/kv.mjs';
import { sql } from '../common/sql.mjs';
import { prepare } from '../common/transpile.mjs';
import { Wit } from '../common/wit.mjs';
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
    components[name] = (engines) =>
        instantiate(coreModule, {
            'tollgate:storage/kv': kv(engines.kv, grants.kv),
            'tollgate:storage/sql': sql(engines.sql, grants.sql),
        });
}
for (const one of cases) transcript.cases[one.name] = await run(one);
process.stdout.write(JSON.stringify(transcript));

async function run(one) {
    let now = one.steps[0].now_ms;
    const engines = {
        kv: enginesFor('kv', () => new MapEngine(() => now)),
        sql: enginesFor('sql', () => new SqliteEngine(':memory:')),
    };
    const resources = {
        kv: kv(engines.kv, everything(engines.kv)).Store,
        sql: sql(engines.sql, everything(engines.sql)).Database,
    };
    await prepareCase(one.before, engines);
    // An instance serves one call after another, as in Tollgate; calls at once have one each.
    const started = {};
    const answers = await drive(one.steps, async (step) => {
        now = step.now_ms;
        if (isStore(step.plugin)) return callStore(wit, resources[step.plugin], step);
        if (step.together) return callHook(wit, await components[step.plugin](engines), step);
        started[step.plugin] ??= await components[step.plugin](engines);
        return callHook(wit, started[step.plugin], step);
    });
    return { answers, ...(await outcomeOf(one, engines)) };
}

/** One engine for each store that a plugin is granted, by name. */
function enginesFor(kind, make) {
    const names = Object.values(plugins).flatMap(({ grants }) => Object.keys(grants[kind] ?? {}));
    return new Map(names.map((name) => [name, make()]));
}
