// The contracts, as the WIT parser resolved them: which functions there are, and how their values pass between JSON, as
// the cases of plugins write it, and JavaScript as jco wants it.

import { fromHex, toHex } from './hex.mjs';

export class Contracts {
    #resolve;

    /** `resolve`: what is in contracts.json. */
    constructor(resolve) {
        this.#resolve = resolve;
    }

    /**
     * All functions of all interfaces of a package, as jco names them. It ignores a name it does not know and drops the
     * promise of a function it was not told about, so this list is never written by hand.
     */
    functions(namespace) {
        return this.#interfaces(namespace).flatMap(({ id, functions }) =>
            Object.keys(functions).map((name) => `${id}#${name}`),
        );
    }

    /** The interface of a package that has a function of this name, with the function itself. */
    find(namespace, name) {
        const found = this.#interfaces(namespace).find(({ functions }) => name in functions);
        if (!found) throw new Error(`${namespace} has no function ${name}`);
        return { id: found.id, ...found.functions[name] };
    }

    #interfaces(namespace) {
        return this.#resolve.interfaces.flatMap((item) => {
            const [name, version] = this.#resolve.packages[item.package].name.split('@');
            return name === namespace ? [{ id: `${name}/${item.name}@${version}`, functions: item.functions }] : [];
        });
    }

    /** A value of a case as an argument. */
    toGuest(type, value) {
        if (type === 'u64' || type === 's64') return BigInt(value);
        if (typeof type === 'string') return value;
        const [kind, body] = this.#kind(type);
        switch (kind) {
            case 'type':
                return this.toGuest(body, value);
            case 'enum':
                return value;
            case 'option':
                return value === null ? undefined : this.toGuest(body, value);
            case 'list':
                if (body === 'u8') return fromHex(value);
                return value.map((item) => this.toGuest(body, item));
            case 'variant': {
                const [[tag, payload]] = typeof value === 'string' ? [[value]] : Object.entries(value);
                const { type } = body.cases.find(({ name }) => name === tag);
                return type === null ? { tag } : { tag, val: this.toGuest(type, payload) };
            }
            case 'tuple':
                return body.types.map((type, at) => this.toGuest(type, value[at]));
            case 'record':
                return Object.fromEntries(
                    body.fields.map((field) => {
                        const given = field.name in value || this.#isOption(field.type);
                        if (!given) throw new Error(`${JSON.stringify(value)} has no ${field.name}`);
                        return [camel(field.name), this.toGuest(field.type, value[field.name] ?? null)];
                    }),
                );
            default:
                throw new Error(`no argument of kind ${kind} is known`);
        }
    }

    /** What a guest returned, as a case writes it. */
    fromGuest(type, value) {
        if (type === 'u64' || type === 's64') return wide(value);
        if (typeof type === 'string') return value;
        if (type === null) return null;
        const [kind, body] = this.#kind(type);
        switch (kind) {
            case 'type':
                return this.fromGuest(body, value);
            case 'enum':
                return value;
            case 'option':
                return value === undefined ? null : this.fromGuest(body, value);
            case 'list':
                if (body === 'u8') return toHex(value);
                return Array.from(value, (item) => this.fromGuest(body, item));
            case 'record':
                return Object.fromEntries(
                    body.fields.map(({ name, type }) => [name, this.fromGuest(type, value[camel(name)])]),
                );
            case 'tuple':
                return body.types.map((type, at) => this.fromGuest(type, value[at]));
            case 'variant': {
                const { type } = body.cases.find(({ name }) => name === value.tag);
                return type === null ? value.tag : { [value.tag]: this.fromGuest(type, value.val) };
            }
            default:
                throw new Error(`no result of kind ${kind} is known`);
        }
    }

    /** The two types of a result, or nothing where the type is none. */
    result(type) {
        const [kind, body] = typeof type === 'number' ? this.#kind(type) : [];
        return kind === 'result' ? body : undefined;
    }

    #isOption(type) {
        return typeof type === 'number' && this.#kind(type)[0] === 'option';
    }

    #kind(type) {
        const { kind } = this.#resolve.types[type];
        return Object.entries(kind)[0];
    }
}

/** A 64-bit number as JSON: a number as far as JavaScript's carry it, text beyond. */
export function wide(value) {
    return value <= 2n ** 53n && value >= -(2n ** 53n) ? Number(value) : String(value);
}

export function camel(name) {
    return name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
}
