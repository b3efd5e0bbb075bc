// Tests of the Worker in workerd, with stores that are gone at the end. Yours to go on with.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { start } from './tollgate/worker/local.mjs';

const runtime = start(import.meta.dirname);
const worker = await runtime.getWorker();
after(() => runtime.dispose());

const ask = (key) =>
    worker.fetch('http://localhost/v1/chat/completions', {
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

test('the clock of the Worker runs what is due', async () => {
    const { outcome } = await worker.scheduled({ scheduledTime: new Date() });
    assert.equal(outcome, 'ok');
});
