// A plugin in JavaScript: a policy that lets each client in so many times, and a job that looks around.

import { Store } from 'tollgate:storage/kv';
import { getArguments, getEnvironment, initialCwd } from 'wasi:cli/environment';
import { getStderr } from 'wasi:cli/stderr';
import { getStdout } from 'wasi:cli/stdout';
import { now } from 'wasi:clocks/monotonic-clock';
import { getDirectories } from 'wasi:filesystem/preopens';
import { getRandomBytes } from 'wasi:random/random';

const MOST = 2;

export const admission = {
    admit(request, subjects) {
        const store = Store.open('visits');
        return subjects.map(({ kind, id }) => {
            if (kind !== 'client') return { tag: 'allow', val: null };
            const visits = store.increment(id, 1, null);
            if (visits <= MOST) return { tag: 'allow', val: null };
            const reason = `you were here ${MOST} times`;
            return { tag: 'deny', val: { limitName: 'visits', reason, current: visits, limit: MOST, retryAfterMs: null } };
        });
    },

    settle() {},
};

export const jobs = {
    schedule() {
        return [{ name: 'look-around', timing: { tag: 'every', val: 3_600_000 } }];
    },

    run(name, budget) {
        write(getStdout(), `${name} in the time of ${budget.deadlineMs} ms\nand half a line`);
        write(getStdout(), ' more\n');
        write(getStderr(), 'nothing is wrong\n');
        const began = now();
        const seen = {
            environment: getEnvironment(),
            arguments: getArguments(),
            folder: initialCwd(),
            directories: getDirectories(),
            random: [...getRandomBytes(32)],
            random_again: [...getRandomBytes(32)],
            wall_ms: Date.now(),
            ticks: now() - began,
        };
        return { changed: 0, summary: JSON.stringify(seen) };
    },
};

/** The engine in the component has no console. */
function write(stream, text) {
    stream.blockingWriteAndFlush(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
}
