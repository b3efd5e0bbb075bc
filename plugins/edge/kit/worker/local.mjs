// A Worker project in workerd on this machine, as wrangler.json describes it.

import { Miniflare } from 'miniflare';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What no module of the Worker is in. */
const APART = ['node_modules', 'data', 'plugins'];

/** Starts it. `main`: another entry than the configuration's; `state`: the folder of its data, none: it is gone at the end. */
export function start(root, { main, state, port = 0 } = {}) {
    const config = JSON.parse(readFileSync(join(root, 'wrangler.json'), 'utf8'));
    const named = (list, value) => Object.fromEntries((list ?? []).map((one) => [one.binding ?? one.name, value(one)]));
    const folder = (name) => (state ? join(state, name) : false);
    return new Miniflare({
        port,
        modulesRoot: root,
        modules: modulesOf(root, join(root, main ?? config.main)),
        compatibilityDate: config.compatibility_date,
        bindings: config.vars ?? {},
        kvNamespaces: named(config.kv_namespaces, ({ binding }) => binding),
        d1Databases: named(config.d1_databases, ({ binding }) => binding),
        r2Buckets: named(config.r2_buckets, ({ bucket_name }) => bucket_name),
        durableObjects: named(config.durable_objects?.bindings, ({ class_name }) => ({
            className: class_name,
            useSQLite: true,
        })),
        queueProducers: named(config.queues?.producers, ({ queue }) => queue),
        queueConsumers: Object.fromEntries(
            (config.queues?.consumers ?? []).map(({ queue, ...consumer }) => [
                queue,
                {
                    maxBatchSize: consumer.max_batch_size,
                    maxBatchTimeout: consumer.max_batch_timeout,
                    maxRetries: consumer.max_retries,
                    retryDelay: consumer.retry_delay,
                },
            ]),
        ),
        kvPersist: folder('kv'),
        d1Persist: folder('d1'),
        r2Persist: folder('r2'),
        durableObjectsPersist: folder('objects'),
    });
}

/** All modules below the project, the entry first. Listed, since those of jco name some of Node's that they do not use here. */
function modulesOf(root, entry) {
    const folders = readdirSync(root, { withFileTypes: true }).filter((one) => one.isDirectory() && !APART.includes(one.name));
    const files = folders.flatMap(({ name }) => {
        const found = readdirSync(join(root, name), { recursive: true });
        return found.map((file) => join(root, name, file));
    });
    const typed = files.flatMap((path) => {
        if (/\.m?js$/.test(path)) return [{ type: 'ESModule', path }];
        return path.endsWith('.wasm') ? [{ type: 'CompiledWasm', path }] : [];
    });
    return typed.sort((a, b) => (b.path === entry) - (a.path === entry));
}
