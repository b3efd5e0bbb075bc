// The plugins of a project as a gateway uses them. Values are written as the cases of plugins write them: by the names of wit/,
// bytes as hexadecimal text, what a record leaves out is none.

import { admit } from './admission.mjs';
import { printable } from './check.mjs';
import { ingest } from './events.mjs';
import { isDue } from './jobs.mjs';

/** Who ingests has the queue for so long at most; then somebody else may. */
const INGEST_MS = 60_000;

export class Policies {
    #plugins;
    #host;

    /**
     * `host`: `turns`, the engine of a kv store of its own; `queue`, an EventQueue; `ready`, a Set that lives as long as the
     * program; `now`, milliseconds since 1970.
     */
    constructor(plugins, host) {
        this.#plugins = plugins;
        this.#host = host;
    }

    /** Asks all admission plugins, in their order; see `admit` in admission.mjs for what it answers. */
    async admit(request, subjects) {
        return admit(await this.#ready('admission'), request, subjects, this.#host.now);
    }

    /** Puts the records of requests that ended into the durable queue, if a plugin takes them: each once, however often it comes. */
    async record(events) {
        if (!this.#plugins.some((plugin) => plugin.has('ingestion'))) return;
        await this.#host.queue.append(events);
    }

    /** Gives the queue to the ingestion plugin; answers how many events were stored. Nobody else does it meanwhile. */
    async ingest() {
        const [plugin] = await this.#ready('ingestion');
        if (!plugin) return 0;
        return (await this.#alone('ingest', INGEST_MS, () => ingest(plugin, this.#host.queue))) ?? 0;
    }

    /**
     * Runs the jobs whose time has come after `from` and not after `to`, milliseconds since 1970; answers what they did, or how
     * they `failed`, which stops no other. Without a `job` it is the plugin that failed.
     */
    async runJobs(from, to) {
        const done = [];
        for (const plugin of this.#having('jobs')) {
            const { name } = plugin.about;
            const schedule = await attempted(async () => {
                await this.#prepare(plugin);
                return plugin.call('schedule');
            });
            if (schedule.failed) done.push({ plugin: name, ...schedule });
            for (const { name: job, timing } of schedule.value ?? []) {
                const { value, failed } = await attempted(() => isDue(timing, from, to) && this.#runJob(plugin, job));
                if (failed) done.push({ plugin: name, job, failed });
                else if (value) done.push({ plugin: name, job, ...value });
            }
        }
        return done;
    }

    async #runJob(plugin, name) {
        const deadline = plugin.about['job-deadline-ms'];
        const budget = { 'now-ms': this.#host.now(), 'deadline-ms': deadline };
        return this.#alone(`job/${plugin.about.name}/${name}`, deadline, () => plugin.call('run', name, budget));
    }

    #having(hook) {
        return this.#plugins.filter((plugin) => plugin.has(hook));
    }

    /** The plugins with a hook, each of whose versions was prepared. */
    async #ready(hook) {
        const plugins = this.#having(hook);
        for (const plugin of plugins) await this.#prepare(plugin);
        return plugins;
    }

    /** Has a version prepare itself, the first time. */
    async #prepare(plugin) {
        const version = `init/${plugin.about.name}/${plugin.about.digest}`;
        if (this.#host.ready.has(version)) return;
        if (plugin.has('lifecycle')) await this.#init(plugin, version);
        this.#host.ready.add(version);
    }

    async #init(plugin, version) {
        const [prepared] = await this.#host.turns.getMany([version]);
        if (prepared) return;
        await plugin.call('init');
        await this.#host.turns.setMany([[version, new Uint8Array()]], undefined, false);
    }

    /** Does what only one may do at a time; nothing while somebody else does it. A turn whose owner is gone ends by its time. */
    async #alone(turn, mostMs, work) {
        const owner = new TextEncoder().encode(crypto.randomUUID());
        const { turns } = this.#host;
        if (!(await turns.setMany([[turn, owner]], mostMs, true))) return undefined;
        try {
            return await work();
        } finally {
            const [now] = await turns.getMany([turn]);
            // After its time it may be another's.
            if (now && now.value.every((byte, at) => byte === owner[at])) await turns.deleteMany([turn]);
        }
    }
}

/** The `value` of what one plugin does, or how it `failed`. */
async function attempted(work) {
    try {
        return { value: await work() };
    } catch (error) {
        const failed = printable(error?.message || String(error));
        console.error(failed);
        return { failed };
    }
}
