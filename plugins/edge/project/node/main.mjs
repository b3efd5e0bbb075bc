// The gateway in Node, with its data in data/.
//
//     PORT=8787 node main.mjs

import { start } from './tollgate/node/serve.mjs';

const server = await start(import.meta.dirname, { data: 'data', port: Number(process.env.PORT ?? 8787) });
console.log(`listening on ${server.url}`);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.close());
