// One call of a plugin, or of a store itself, for each request to the worker; and what a case begins and ends with.

import * as project from '../build/project.mjs';
import { outcomeOf, prepareCase } from '../common/contents.mjs';
import { call } from '../common/step.mjs';
import { Contracts } from '../tollgate/contracts.mjs';
import { pluginsOf } from '../tollgate/worker/policies.mjs';
import { stores } from '../tollgate/worker/stores.mjs';

export { TollgateStore } from '../tollgate/worker/durable.mjs';

const contracts = new Contracts(project.contracts);

const WORK = {
    '/prepare': ({ before }, engines) => prepareCase(before, engines),
    '/step': ({ step }, engines, env) => call(contracts, pluginsOf(project, env, () => step.now_ms), engines, step),
    '/outcome': ({ one }, engines) => outcomeOf(one, engines),
};

export default {
    async fetch(request, env) {
        const body = await request.json();
        const engines = stores(env, project.stores, () => body.now_ms);
        return Response.json((await WORK[new URL(request.url).pathname](body, engines, env)) ?? null);
    },
};
