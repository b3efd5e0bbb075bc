// Which jobs are due when.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cron, isDue } from '../tollgate/jobs.mjs';

const at = (text) => Date.parse(`${text}Z`);

test('a job of every so many milliseconds is due once in each of them', () => {
    const timing = { every: 300_000 };
    let times = 0;
    for (let minute = 0; minute < 60; minute += 1) {
        if (isDue(timing, at('2026-01-01T00:00') + minute * 60_000, at('2026-01-01T00:01') + minute * 60_000)) times += 1;
    }
    assert.equal(times, 12);
});

test('a job of a cron expression is due in its minutes', () => {
    for (const [expression, time, due] of [
        ['*/15 * * * *', '2026-01-01T00:30', true],
        ['*/15 * * * *', '2026-01-01T00:31', false],
        ['5 4 * * *', '2026-01-01T04:05', true],
        ['0 0 1,15 * *', '2026-01-15T00:00', true],
        ['0 9-17/4 * * 1-5', '2026-01-02T13:00', true],
        ['0 9-17/4 * * 1-5', '2026-01-03T13:00', false],
        ['0 0 * * 7', '2026-01-04T00:00', true],
        ['0 0 13 * 5', '2026-01-02T00:00', true],
        ['0 3 * * MON', '2026-01-05T03:00', true],
        ['0 3 * * MON', '2026-01-06T03:00', false],
        ['0 0 * jan,Mar sun', '2026-01-04T00:00', true],
        ['0 0 * 2 SUN', '2026-01-04T00:00', false],
        ['0 0 * * fri-sun', '2026-01-04T00:00', true],
    ]) {
        assert.equal(isDue({ cron: expression }, at(time) - 60_000, at(time)), due, `${expression} at ${time}`);
        assert.equal(isDue({ cron: expression }, at(time), at(time)), false);
    }
});

test('an expression that is not understood says where', () => {
    assert.throws(() => cron('* * * *'), /five fields/);
    assert.throws(() => cron('60 * * * *'), /minute 60: 0 to 59 is allowed/);
    assert.throws(() => cron('0 0 * mon *'), /month mon: numbers, names/);
    assert.throws(() => cron('0 0 L * *'), /day L: numbers/);
});
