// A project in Node: requests over HTTP, records and jobs by the clock.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';

import { policies } from './policies.mjs';

/** Bytes of a request's body. */
const BODY_BYTES = 10 << 20;

/** Time between two looks at what is to be ingested and which jobs are due. */
const TURN_MS = 1_000;

/** Starts the project of a folder on this machine's own address. `data`: the folder of its stores; `settings`: for the gateway. */
export async function start(root, { data, port = 0, settings = process.env }) {
    const load = (path) => import(pathToFileURL(join(root, path)));
    const [project, { answer }] = await Promise.all([load('build/project.mjs'), load('src/gateway.mjs')]);
    const { policies: own, close: closeStores } = policies(project, join(root, data));
    const unfinished = new Set();
    const later = (work) => {
        const kept = work.catch((error) => console.error(error)).finally(() => unfinished.delete(kept));
        unfinished.add(kept);
    };
    const context = { policies: own, settings, record: (event) => own.record([event]), later };
    const server = createServer((incoming, outgoing) => {
        respond(incoming, outgoing, (request) => answer(request, context)).catch((error) => {
            console.error(error);
            outgoing.destroy();
        });
    });

    let last = Date.now();
    let turning = Promise.resolve();
    const turn = async () => {
        const now = Date.now();
        try {
            await own.ingest();
        } finally {
            await jobs(now);
        }
    };
    const jobs = async (now) => {
        try {
            for (const job of await own.runJobs(last, now)) console.log(JSON.stringify(job));
        } finally {
            // Whatever failed, what ran does not run again.
            last = now;
        }
    };
    const clock = setInterval(() => (turning = turning.then(turn).catch((error) => console.error(error))), TURN_MS);

    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return {
        url: `http://127.0.0.1:${server.address().port}/`,
        /** What `own.ingest` and `own.runJobs` do by the clock, for tests. */
        policies: own,
        async close() {
            clearInterval(clock);
            server.close();
            server.closeIdleConnections();
            await once(server, 'close');
            await Promise.all(unfinished);
            await turning.then(turn).catch((error) => console.error(error));
            closeStores();
        },
    };
}

async function respond(incoming, outgoing, answer) {
    const body = await bodyOf(incoming);
    if (!body) {
        outgoing.writeHead(413, { connection: 'close' }).end();
        return;
    }
    const { method, headers, url } = incoming;
    const hasBody = !['GET', 'HEAD'].includes(method);
    const request = new Request(new URL(url, 'http://localhost'), { method, headers, body: hasBody ? body : undefined });
    const response = await answer(request);
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    if (!response.body) return void outgoing.end();
    const stream = Readable.fromWeb(response.body);
    // A client that leaves ends the answer, and that the upstream's.
    if (outgoing.destroyed) return void stream.destroy();
    outgoing.once('close', () => stream.destroy());
    stream.on('error', () => outgoing.destroy()).pipe(outgoing);
}

/** None: it is too long. */
async function bodyOf(incoming) {
    const pieces = [];
    let size = 0;
    for await (const piece of incoming) {
        size += piece.length;
        if (size > BODY_BYTES) return undefined;
        pieces.push(piece);
    }
    return Buffer.concat(pieces);
}
