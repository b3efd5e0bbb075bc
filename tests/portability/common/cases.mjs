// Runs the steps of a case, whatever the runtime of the plugins is.

import { isDeepStrictEqual } from 'node:util';

/** The answers of all steps, with what is opaque under its names. `call` makes one call of a plugin. */
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

/** Puts what is opaque in the places of its names. */
function handBack(value, opaque) {
    if (isName(value)) return opaque.get(value) ?? value;
    if (Array.isArray(value)) return value.map((item) => handBack(item, opaque));
    return mapFields(value, (item) => handBack(item, opaque));
}

/** Takes what is opaque under the names that are expected in its places; another value than before keeps its own. */
function nameOpaque(expected, found, opaque) {
    if (isName(expected) && (typeof found === 'string' || typeof found === 'number')) {
        if (!opaque.has(expected)) opaque.set(expected, found);
        return opaque.get(expected) === found ? expected : found;
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
