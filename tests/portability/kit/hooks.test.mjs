// What the kit does with the answers of plugins, which here are made up.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { admit } from '../tollgate/admission.mjs';
import { ingest } from '../tollgate/events.mjs';
import { NodeStores } from '../tollgate/node/stores.mjs';
import { PluginError } from '../tollgate/plugin.mjs';
import { Policies } from '../tollgate/policies.mjs';

const now = () => 1_700_000_000_000;
const request = { id: 'r1', 'now-ms': now(), model: 'm' };
const subjects = [
    { kind: 'client', id: 'c', name: 'C' },
    { kind: 'account', id: 'a', name: 'A' },
];

/** A plugin whose hooks answer as these functions do; `told` has its settlements. */
function plugin(name, hooks, about = {}) {
    const told = [];
    const call = async (hook, ...values) => {
        if (hook === 'settle') return void told.push(...values[0]);
        return hooks[hook](...values);
    };
    const has = (hook) => hook in hooks || hook === about.hook;
    return { about: { name, digest: name, 'on-error': 'deny', 'job-deadline-ms': 60_000, ...about }, call, has, told };
}

const failing = (name) => () => {
    throw new PluginError(name, 'admit', { text: 'broken' });
};

test('every allow with a ticket is settled, one without only when it went wrong', async () => {
    const both = plugin('both', { admit: () => [{ allow: '01' }, 'allow'] });
    const admitted = await admit([both], request, subjects, now);
    await admitted.renew({ 'duration-ms': 1 });
    await admitted.settle({ ending: 'completed', status: 200, 'duration-ms': 2 });
    assert.deepEqual(
        both.told.map(({ subject, ticket, usage }) => [subject.id, ticket, usage.ending]),
        [
            ['c', '01', 'running'],
            ['c', '01', 'completed'],
        ],
    );
    await admitted.settle({ ending: 'completed', status: 500, 'duration-ms': 2 });
    assert.equal(both.told.length, 4);
});

test('what was allowed before another refused is settled as never sent', async () => {
    const first = plugin('first', { admit: () => [{ allow: '01' }, { allow: '02' }] });
    const asked = [];
    const second = plugin('second', {
        admit: (_, subjects) => (asked.push(subjects.length), [{ deny: { reason: 'full' } }, 'allow']),
    });
    const third = plugin('third', { admit: (_, subjects) => (asked.push(subjects.length), ['allow']) });
    const { refusal } = await admit([first, second, third], request, subjects, now);
    assert.deepEqual([refusal.plugin, refusal.subject.id, refusal.denial.reason], ['second', 'c', 'full']);
    assert.deepEqual(asked, [2, 1]);
    assert.deepEqual(
        first.told.map(({ usage }) => usage.ending),
        ['never-sent', 'never-sent'],
    );
});

test('a plugin that fails counts as its manifest says', async () => {
    const strict = plugin('strict', { admit: failing('strict') });
    assert.equal((await admit([strict], request, subjects, now)).refusal.plugin, 'strict');
    const lenient = plugin('lenient', { admit: failing('lenient') }, { 'on-error': 'allow' });
    assert.equal((await admit([lenient], request, subjects, now)).refusal, undefined);
    const short = plugin('short', { admit: () => ['allow'] });
    assert.match((await admit([short], request, subjects, now)).refusal.failed, /1 decisions for 2 subjects/);
});

function stores() {
    const folder = mkdtempSync(join(tmpdir(), 'kit-'));
    after(() => rmSync(folder, { recursive: true }));
    return new NodeStores(folder, {}, now);
}

test('an event is taken once, in order, and one that fails on and on is set aside', async () => {
    const { queue } = stores();
    const event = (id) => ({ 'request-id': id });
    await queue.append([event('a'), event('bad'), event('a'), event('c')]);
    await queue.append([event('c')]);
    const taken = [];
    const picky = plugin('picky', {
        ingest(events) {
            if (events.some((event) => event['request-id'] === 'bad')) throw new PluginError('picky', 'ingest', { text: 'no' });
            taken.push(...events.map((event) => [event.sequence, event['request-id']]));
            return { stored: events.length };
        },
    });
    for (let tries = 1; tries < 5; tries += 1) await assert.rejects(ingest(picky, queue), /ingest: no/);
    assert.equal(await ingest(picky, queue), 1);
    assert.deepEqual(taken, [
        [1, 'a'],
        [3, 'c'],
    ]);
    assert.deepEqual(await queue.next(10), []);
});

test('a version is prepared once, and a job runs once at a time', async () => {
    const { queue, turns } = stores();
    let prepared = 0;
    let running = 0;
    const end = Promise.withResolvers();
    const worker = plugin(
        'worker',
        {
            lifecycle: () => undefined,
            init: () => (prepared += 1),
            schedule: () => [{ name: 'sweep', timing: { every: 1_000 } }],
            run: async () => ((running += 1), await end.promise, { changed: 1, summary: 's' }),
        },
        { hook: 'jobs' },
    );
    const host = () => new Policies([worker], { turns, queue, ready: new Set(), now });
    const first = host().runJobs(0, 1_000);
    while (running === 0) await new Promise(setImmediate);
    assert.deepEqual(await host().runJobs(0, 1_000), []);
    end.resolve();
    assert.deepEqual(await first, [{ plugin: 'worker', job: 'sweep', changed: 1, summary: 's' }]);
    assert.equal((await host().runJobs(0, 1_000)).length, 1);
    assert.deepEqual([prepared, running], [1, 2]);
});

test('what fails of a plugin stops no job of another, nor another of its own', async () => {
    const { queue, turns } = stores();
    const timing = { every: 1_000 };
    const fails = (hook) => () => {
        throw new PluginError(hook, hook, { text: 'broken' });
    };
    const run = (name) => {
        if (name === 'bad') throw new Error('lost');
        return { changed: 1 };
    };
    const good = [{ name: 'good', timing }];
    const jobs = { hook: 'jobs' };
    const plugins = [
        plugin('init', { lifecycle: () => {}, init: fails('init'), schedule: () => good, run }, jobs),
        plugin('schedule', { schedule: fails('schedule'), run }, jobs),
        plugin('cron', { schedule: () => [{ name: 'bad', timing: { cron: '0 0 L * *' } }, ...good], run }, jobs),
        plugin('run', { schedule: () => [{ name: 'bad', timing }, ...good], run }, jobs),
    ];
    const done = await new Policies(plugins, { turns, queue, ready: new Set(), now }).runJobs(0, 1_000);
    const [init, schedule, cron, ofCron, lost, ofRun] = done;
    assert.equal(done.length, 6);
    assert.match(init.failed, /plugin init: init: broken/);
    assert.match(schedule.failed, /schedule: broken/);
    assert.deepEqual([cron.plugin, cron.job], ['cron', 'bad']);
    assert.match(cron.failed, /day L/);
    assert.deepEqual(lost, { plugin: 'run', job: 'bad', failed: 'lost' });
    assert.deepEqual([ofCron, ofRun], ['cron', 'run'].map((name) => ({ plugin: name, job: 'good', changed: 1 })));
});
