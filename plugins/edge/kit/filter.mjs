// Filters of vector queries: what the metadata of a match must be.

import { bytesOf, fits, inOrder, valid } from './check.mjs';
import { FILTER_BYTES, FILTER_VALUES } from './limits.mjs';

/** Bytes of a text that count. */
const TEXT_BYTES = 256;

const ORDERED = {
    $lt: (order) => order < 0,
    $lte: (order) => order <= 0,
    $gt: (order) => order > 0,
    $gte: (order) => order >= 0,
};

/** A function that says of metadata, as an object or none, whether the filter takes it. `text`: JSON, or none: all are taken. */
export function parseFilter(text, indexed) {
    if (text === undefined) return () => true;
    fits(bytesOf(text) <= FILTER_BYTES, 'the filter');
    let filter;
    try {
        filter = JSON.parse(text);
    } catch (error) {
        valid(false, `filter: ${error.message}`);
    }
    valid(isObject(filter) && Object.keys(filter).length > 0, 'filter: it is an object and not empty');
    const conditions = Object.entries(filter).flatMap(([name, condition]) => {
        valid(indexed.includes(name), `filter: property ${name} is not indexed; indexed are: ${indexed.join(', ')}`);
        return tests(condition).map((test) => (metadata) => test(cell(find(metadata, name))));
    });
    return (metadata) => conditions.every((holds) => holds(metadata));
}

/** The value of a property, whose name leads into objects by its dots. */
export function find(metadata, name) {
    return name.split('.').reduce((value, part) => (isObject(value) ? value[part] : undefined), metadata);
}

function tests(condition) {
    if (!isObject(condition)) return [among([operand(condition)], true)];
    valid(Object.keys(condition).length > 0, 'filter: an operator is missing');
    return Object.entries(condition).map(([name, value]) => {
        if (name === '$eq' || name === '$ne') return among([operand(value)], name === '$eq');
        if (name === '$in' || name === '$nin') return among(operands(value), name === '$in');
        valid(Object.hasOwn(ORDERED, name), `filter: ${name} is no operator`);
        const bound = operand(value);
        valid(['number', 'string'].includes(typeof bound), 'filter: only texts and numbers have an order');
        return (found) => typeof found === typeof bound && ORDERED[name](compare(found, bound));
    });
}

function among(values, wanted) {
    return (found) => values.includes(found) === wanted;
}

function operands(list) {
    valid(Array.isArray(list) && list.length > 0, 'filter: $in and $nin take a list that is not empty');
    fits(list.length <= FILTER_VALUES, 'a list of the filter');
    return list.map(operand);
}

function operand(value) {
    valid(value === null || typeof value !== 'object', 'filter: a text, a number, a boolean or null is compared');
    return cell(value);
}

/** What is absent, or a list or an object, is as null. */
function cell(value) {
    if (value === undefined || typeof value === 'object') return null;
    return typeof value === 'string' ? cut(value) : value;
}

/** The beginning of a text that counts; a letter is not cut. */
function cut(text) {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length <= TEXT_BYTES) return text;
    let end = TEXT_BYTES;
    while ((bytes[end] & 0xc0) === 0x80) end -= 1;
    return new TextDecoder().decode(bytes.subarray(0, end));
}

function compare(a, b) {
    return typeof a === 'string' ? inOrder(a, b) : a - b;
}

export function isObject(value) {
    return value !== null && typeof value === 'object' && !Array.isArray(value);
}
