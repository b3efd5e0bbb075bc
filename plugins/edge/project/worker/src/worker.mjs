// The Worker: what Cloudflare calls.

import * as project from '../build/project.mjs';
import { policies } from '../tollgate/worker/policies.mjs';
import { answer } from './gateway.mjs';

export { TollgateStore } from '../tollgate/worker/durable.mjs';

export default {
    /** A request of a client. */
    async fetch(request, env, context) {
        return answer(request, {
            policies: policies(project, env),
            settings: env,
            record: (event) => env.EVENTS?.send(event),
            later: (work) => context.waitUntil(work),
        });
    },

    /**
     * Records of requests that ended, from the queue: in whatever order, and some of them twice. Once they are recorded the
     * queue is done with them, even where the plugin fails: `scheduled` gives them to it again.
     */
    async queue(batch, env) {
        const own = policies(project, env);
        await own.record(batch.messages.map(({ body }) => body));
        await own.ingest().catch((error) => console.error(error));
    },

    /** Every minute, as wrangler.json says. */
    async scheduled({ scheduledTime }, env) {
        const own = policies(project, env);
        try {
            await own.ingest();
        } finally {
            const done = await own.runJobs(scheduledTime - 60_000, scheduledTime);
            for (const job of done) console.log(JSON.stringify(job));
        }
    },
};
