// The cases in Node, in an exported project. Reads what to do from a file and prints what came of it.
//
//     node node/main.mjs input.json

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as project from '../build/project.mjs';
import { drive } from '../common/cases.mjs';
import { outcomeOf, prepareCase } from '../common/contents.mjs';
import { call } from '../common/step.mjs';
import { Contracts } from '../tollgate/contracts.mjs';
import { pluginsOf } from '../tollgate/node/policies.mjs';
import { NodeStores } from '../tollgate/node/stores.mjs';

const { cases } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const contracts = new Contracts(project.contracts);
const digests = Object.fromEntries(project.plugins.map(({ name, digest }) => [name, digest]));
const transcript = { digests, cases: {} };
for (const one of cases) transcript.cases[one.name] = await run(one);
process.stdout.write(JSON.stringify(transcript));

/** Each case has stores of its own. */
async function run(one) {
    const folder = await mkdtemp(join(tmpdir(), 'case-'));
    let now = one.steps[0].now_ms;
    const stores = new NodeStores(folder, project.stores, () => now);
    try {
        await prepareCase(one.before, stores.engines);
        const plugins = pluginsOf(project, stores.engines);
        const answers = await drive(one.steps, async (step) => {
            now = step.now_ms;
            return call(contracts, plugins, stores.engines, step);
        });
        return { answers, ...(await outcomeOf(one, stores.engines)) };
    } finally {
        stores.close();
        await rm(folder, { recursive: true });
    }
}
