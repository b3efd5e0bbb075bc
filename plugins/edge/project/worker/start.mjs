// The Worker on this machine, with its data in data/.
//
//     PORT=8787 node start.mjs

import { start } from './tollgate/worker/local.mjs';

const runtime = start(import.meta.dirname, { state: 'data', port: Number(process.env.PORT ?? 8787) });
console.log(`listening on ${await runtime.ready}`);

// Here no clock of Cloudflare's calls `scheduled`.
const worker = await runtime.getWorker();
const clock = setInterval(() => worker.scheduled({ scheduledTime: new Date() }), 60_000);
for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, async () => {
        clearInterval(clock);
        await runtime.dispose();
    });
}
