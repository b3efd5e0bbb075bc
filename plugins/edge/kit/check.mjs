// What all stores check of what they are given.

import { StorageError } from './errors.mjs';

/** Refuses what is over a limit. */
export function fits(fitting, what) {
    if (!fitting) throw new StorageError('too-large', `${what} is over the limit`);
}

/** Refuses a call that is wrong. */
export function valid(condition, text) {
    if (!condition) throw new StorageError('invalid', text);
}

export function bytesOf(text) {
    return new TextEncoder().encode(text).length;
}

export function sum(items, bytes) {
    return items.reduce((total, item) => total + bytes(item), 0);
}

/** Names, each short enough and not empty. */
export function checkedNames(names, most, bytes, what) {
    fits(names.length <= most, 'the list');
    for (const name of names) {
        valid(name !== '', `${what} is not empty`);
        fits(bytesOf(name) <= bytes, what);
    }
    return names;
}

/** `limit` of a page: out of its bounds it is taken to the nearest. */
export function pageLimit(limit, most) {
    return Math.min(Math.max(limit, 1), most);
}

/** Texts in the order of their UTF-8 bytes, which is not the order of JavaScript's strings. */
export function inOrder(a, b) {
    const [left, right] = [a, b].map((text) => new TextEncoder().encode(text));
    const shared = Math.min(left.length, right.length);
    for (let at = 0; at < shared; at += 1) {
        if (left[at] !== right[at]) return left[at] - right[at];
    }
    return left.length - right.length;
}

/** What a plugin wrote, as it is shown: nothing in it reaches the terminal. */
export function printable(text) {
    return text.replace(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '\ufffd');
}
