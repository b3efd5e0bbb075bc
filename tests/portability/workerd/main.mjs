// The cases in workerd, in an exported project. Reads what to do from a file and prints what came of it.
//
//     node workerd/main.mjs input.json

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { drive } from '../common/cases.mjs';
import { start } from '../tollgate/worker/local.mjs';

const { cases } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const root = join(import.meta.dirname, '..');
const plugins = JSON.parse(await readFile(join(root, 'plugins.json'), 'utf8'));
const digests = Object.fromEntries(plugins.map(({ name, digest }) => [name, digest]));
const transcript = { digests, cases: {} };
for (const one of cases) transcript.cases[one.name] = await run(one);
process.stdout.write(JSON.stringify(transcript));

/** Each case has a runtime and stores of its own. */
async function run(one) {
    const runtime = start(root, { main: 'workerd/worker.mjs' });
    let now_ms = one.steps[0].now_ms;
    const post = async (path, body) => {
        const request = { method: 'POST', body: JSON.stringify({ ...body, now_ms }) };
        const response = await runtime.dispatchFetch(`http://worker${path}`, request);
        if (!response.ok) throw new Error(`the worker answered ${response.status}: ${await response.text()}`);
        return response.json();
    };
    try {
        await post('/prepare', { before: one.before });
        const answers = await drive(one.steps, async (step) => {
            now_ms = step.now_ms;
            return post('/step', { step });
        });
        return { answers, ...(await post('/outcome', { one })) };
    } finally {
        await runtime.dispose();
    }
}
