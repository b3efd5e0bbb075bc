// The way of a request through the gateway that a project starts with.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { answer } from '../src/gateway.mjs';

test('the leases of a request are renewed for as long as it runs', async (context) => {
    context.mock.timers.enable({ apis: ['setInterval'] });
    const told = [];
    const admitted = { renew: async () => told.push('running'), settle: async ({ ending }) => told.push(ending) };
    let upstream;
    const body = new ReadableStream({ start: (controller) => (upstream = controller) });
    context.mock.method(globalThis, 'fetch', async () => new Response(body));
    const works = [];
    const request = new Request('http://localhost/', { method: 'POST', headers: { authorization: 'Bearer k' }, body: '{}' });
    const response = await answer(request, {
        policies: { admit: async () => admitted },
        settings: { UPSTREAM: 'http://upstream/' },
        record: async () => {},
        later: (work) => works.push(work),
    });
    context.mock.timers.tick(40_000);
    upstream.close();
    await response.text();
    await works[0];
    context.mock.timers.tick(40_000);
    assert.deepEqual(told, ['running', 'running', 'completed']);
});
