// The durable queue of events for the ingestion plugin, in SQLite: it gives the sequence and keeps the order, which the queues of
// the runtimes do not.

import { EVENT_KNOWN_MS, EVENT_TRIES, EVENTS } from './limits.mjs';
import { PluginError } from './plugin.mjs';

export const SCHEMA = [
    `CREATE TABLE IF NOT EXISTS event (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0)`,
    'CREATE TABLE IF NOT EXISTS event_known (id TEXT PRIMARY KEY, time_ms INTEGER NOT NULL) WITHOUT ROWID',
    'CREATE INDEX IF NOT EXISTS event_known_time ON event_known (time_ms)',
    `CREATE TABLE IF NOT EXISTS event_aside (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL, reason TEXT NOT NULL)`,
];

const KNOWN = 'INSERT OR IGNORE INTO event_known VALUES (?1, ?2)';
const APPEND = 'INSERT INTO event (body) SELECT ?1 WHERE changes() > 0';
const FORGET = 'DELETE FROM event_known WHERE time_ms < ?1';
const NEXT = 'SELECT sequence, body, tries FROM event ORDER BY sequence LIMIT ?1';
const DONE = 'DELETE FROM event WHERE sequence <= ?1';
const TRIED = 'UPDATE event SET tries = tries + 1 WHERE sequence = ?1';
const ASIDE = 'INSERT OR REPLACE INTO event_aside SELECT sequence, body, ?2 FROM event WHERE sequence = ?1';

export class EventQueue {
    #batch;
    #now;

    /** `batch`: as for engines over SQLite; `now`: milliseconds since 1970. */
    constructor(batch, now) {
        this.#batch = batch;
        this.#now = now;
    }

    /** Takes events, each once however often it comes: their `request-id` tells. They are on disk when it returns. */
    async append(events) {
        const now = this.#now();
        const appends = events.flatMap((event) => [
            [KNOWN, [event['request-id'], now]],
            [APPEND, [JSON.stringify(event)]],
        ]);
        await this.#batch([[FORGET, [now - EVENT_KNOWN_MS]], ...appends]);
    }

    /** The next events, in order, with how often the first was tried alone. */
    async next(most) {
        return (await this.#batch([[NEXT, [most]]]))[0];
    }

    async done(sequence) {
        await this.#batch([[DONE, [sequence]]]);
    }

    async tried(sequence) {
        await this.#batch([[TRIED, [sequence]]]);
    }

    async setAside(sequence, reason) {
        await this.#batch([
            [ASIDE, [sequence, reason]],
            [DONE, [sequence]],
        ]);
    }
}

/** Gives the plugin what is in the queue, in order; answers how many events it stored. Only one may do so at a time. */
export async function ingest(plugin, queue) {
    let stored = 0;
    let most = EVENTS;
    for (;;) {
        const rows = await queue.next(most);
        if (rows.length === 0) return stored;
        const { sequence, tries } = rows[0];
        const events = rows.map(({ sequence, body }) => ({ ...JSON.parse(body), sequence }));
        try {
            stored += (await plugin.call('ingest', events)).stored;
            await queue.done(rows.at(-1).sequence);
            most = EVENTS;
        } catch (error) {
            if (!(error instanceof PluginError)) throw error;
            // One of them may be at fault: again, one by one.
            if (rows.length > 1) {
                most = 1;
                continue;
            }
            if (tries + 1 < EVENT_TRIES) {
                await queue.tried(sequence);
                throw error;
            }
            console.error(`event ${sequence} is set aside: ${error.message}`);
            await queue.setAside(sequence, error.message);
            most = EVENTS;
        }
    }
}
