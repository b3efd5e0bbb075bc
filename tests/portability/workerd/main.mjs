// The cases in workerd. Reads what to do from a file and prints what came of it.
//
//     node workerd/main.mjs input.json

import { readFile, writeFile } from 'node:fs/promises';
import { join, relative, resolve as absolute } from 'node:path';
import { Miniflare } from 'miniflare';

import { drive } from '../common/cases.mjs';
import { outcomeOf, prepareCase } from '../common/contents.mjs';
import { prepare } from '../common/transpile.mjs';
import { Wit } from '../common/wit.mjs';
import { BINDINGS, prepareStores, stores } from './stores.mjs';

const { wit: resolve, plugins, cases, folder } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const root = absolute(import.meta.dirname, '..');
const transcript = { digests: {}, cases: {} };
const modules = await workerModules();
for (const one of cases) transcript.cases[one.name] = await run(one);
process.stdout.write(JSON.stringify(transcript));

/** The worker's modules, the components' core modules among them; its entry comes first. */
async function workerModules() {
    const wit = new Wit(resolve);
    const imports = [`import { worker } from ${source('worker.mjs')};`];
    const components = [];
    const files = [];
    for (const [at, [name, { path, grants }]] of Object.entries(plugins).entries()) {
        const made = await prepare(wit, name, path, join(folder, name));
        transcript.digests[name] = made.digest;
        imports.push(`import { instantiate as plugin${at} } from './${name}/${name}.js';`);
        const cores = made.modules.map((file, core) => {
            imports.push(`import core${at}_${core} from './${name}/${file}';`);
            files.push({ type: 'CompiledWasm', path: join(folder, name, file) });
            return `${JSON.stringify(file)}: core${at}_${core}`;
        });
        files.push({ type: 'ESModule', path: join(folder, name, `${name}.js`) });
        const parts = `instantiate: plugin${at}, modules: { ${cores} }, grants: ${JSON.stringify(grants)}`;
        components.push(`${JSON.stringify(name)}: { ${parts} }`);
    }
    const entry = join(folder, 'entry.mjs');
    const body = `export default worker(${JSON.stringify(resolve)}, { ${components} });\n`;
    await writeFile(entry, `${imports.join('\n')}\n${body}`);
    const own = ['worker', 'stores', 'kv-d1', 'kv-namespace', 'sql'].map((name) => `workerd/${name}.mjs`);
    const common = ['errors', 'grants', 'hex', 'hook', 'kv', 'sql', 'wit'].map((name) => `common/${name}.mjs`);
    const sources = [...own, ...common].map((name) => join(root, name));
    return [...[entry, ...sources].map((path) => ({ type: 'ESModule', path })), ...files];
}

function source(name) {
    return JSON.stringify(relative(folder, join(root, 'workerd', name)));
}

/** Each case has a runtime and stores of its own. */
async function run(one) {
    const runtime = new Miniflare({
        modules,
        modulesRoot: root,
        compatibilityDate: '2026-07-01',
        ...BINDINGS,
    });
    try {
        let now = one.steps[0].now_ms;
        const env = await runtime.getBindings();
        await prepareStores(env);
        const engines = stores(env, () => now);
        await prepareCase(one.before, engines);
        const answers = await drive(one.steps, async (step) => {
            now = step.now_ms;
            const request = { method: 'POST', body: JSON.stringify(step) };
            const response = await runtime.dispatchFetch('http://worker/', request);
            if (!response.ok) throw new Error(`the worker answered ${response.status}: ${await response.text()}`);
            return response.json();
        });
        return { answers, ...(await outcomeOf(one, engines)) };
    } finally {
        await runtime.dispose();
    }
}
