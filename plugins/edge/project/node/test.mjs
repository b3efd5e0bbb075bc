// Tests of the gateway in Node, with stores that are gone at the end. Yours to go on with.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, test } from 'node:test';

import { start } from './tollgate/node/serve.mjs';

const root = import.meta.dirname;
const folder = await mkdtemp(join(tmpdir(), 'tollgate-'));
const server = await start(root, { data: relative(root, folder) });
after(async () => {
    await server.close();
    await rm(folder, { recursive: true });
});

const ask = (key) =>
    fetch(new URL('v1/chat/completions', server.url), {
        method: 'POST',
        headers: key ? { authorization: `Bearer ${key}` } : {},
        body: JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'Hello' }] }),
    });

test('a request with a key is decided by the plugins', async () => {
    const response = await ask('test-key');
    const text = await response.text();
    assert.ok([200, 429].includes(response.status), `${response.status}: ${text}`);
});

test('a request without a key is refused', async () => {
    const response = await ask();
    assert.equal(response.status, 401);
    assert.match((await response.json()).error.reason, /send a key/);
});

test('records are ingested and jobs run', async () => {
    await server.policies.ingest();
    // A day at once, so that every job is due.
    const done = await server.policies.runJobs(Date.now() - 86_400_000, Date.now());
    for (const { failed } of done) assert.equal(failed, undefined);
});
