// Runs the steps of a case, whatever the runtime of the plugins is.

import { isDeepStrictEqual } from 'node:util';

/** The answers of all steps, with opaque bytes under their names. `call` makes one call of a plugin. */
export async function drive(steps, call) {
    const opaque = new Map();
    const answers = [];
    for (const step of steps) {
        const ready = { ...step, arguments: handBack(step.arguments, opaque) };
        if (step.together) {
            const together = Array.from({ length: step.together }, () => call(ready));
            answers.push(tally(step.answer, await Promise.all(together)));
        } else {
            answers.push(nameOpaque(step.answer, await call(ready), opaque));
        }
    }
    return answers;
}

/** How many times each of the expected answers was given, and those that nobody expected. */
function tally(expected, answers) {
    let left = answers;
    const tallied = expected.map(({ answer }) => {
        const others = left.filter((found) => !isDeepStrictEqual(nameOpaque(answer, found, new Map()), answer));
        const times = left.length - others.length;
        left = others;
        return { times, answer };
    });
    return [...tallied, ...left];
}

/** Puts opaque bytes in the places of their names. */
function handBack(value, opaque) {
    if (isName(value)) return opaque.get(value) ?? value;
    if (Array.isArray(value)) return value.map((item) => handBack(item, opaque));
    return mapFields(value, (item) => handBack(item, opaque));
}

/** Takes opaque bytes under the names that are expected in their places. */
function nameOpaque(expected, found, opaque) {
    if (isName(expected) && typeof found === 'string') {
        opaque.set(expected, found);
        return expected;
    }
    if (Array.isArray(found)) return found.map((item, at) => nameOpaque(expected?.[at], item, opaque));
    return mapFields(found, (item, key) => nameOpaque(expected?.[key], item, opaque));
}

function isName(value) {
    return typeof value === 'string' && value.startsWith('$');
}

function mapFields(value, change) {
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, change(item, key)]));
}
