// The chain of plugins that decide which requests may pass, and what becomes of each allow.

import { TICKET_BYTES } from './limits.mjs';
import { PluginError } from './plugin.mjs';

/** Times that plugins are told of an end before it is given up; their leases expire. */
const SETTLE_TRIES = 3;

/**
 * Asks the chain about a request and its subjects. Answers `{ refusal }`: by which `plugin`, of which `subject`, and the
 * `denial`, or how it `failed`; or `{ settle, renew }`, which take what was used, at the end and meanwhile. `now`:
 * milliseconds since 1970.
 */
export async function admit(plugins, request, subjects, now) {
    const asked = subjects.map((subject) => ({ subject, allows: [], refusal: undefined }));
    for (const plugin of plugins) {
        const still = asked.filter(({ refusal }) => !refusal);
        if (still.length === 0) break;
        await ask(plugin, request, still);
    }
    const tell = (usage) => settle(request, asked, usage, now);
    const refused = asked.find(({ refusal }) => refusal);
    if (!refused) return { settle: tell, renew: (usage) => tell({ ...usage, ending: 'running' }) };
    await tell({ ending: 'never-sent', 'duration-ms': now() - request['now-ms'] });
    return { refusal: { subject: refused.subject, ...refused.refusal } };
}

async function ask(plugin, request, still) {
    const subjects = still.map(({ subject }) => subject);
    try {
        const decisions = await plugin.call('admit', request, subjects);
        if (decisions.length !== still.length) {
            const text = `${decisions.length} decisions for ${still.length} subjects`;
            throw new PluginError(plugin.about.name, 'admit', { text });
        }
        still.forEach((one, at) => decide(plugin, one, decisions[at]));
    } catch (error) {
        if (!(error instanceof PluginError)) throw error;
        console.error(error.message);
        for (const one of still) fail(plugin, one, error.message);
    }
}

function decide(plugin, one, decision) {
    if (decision.deny) {
        one.refusal = { plugin: plugin.about.name, denial: decision.deny };
        return;
    }
    const ticket = decision.allow ?? null;
    if (ticket !== null && ticket.length / 2 > TICKET_BYTES) {
        one.allows.push({ plugin, ticket: null });
        if (plugin.about['on-error'] === 'deny') fail(plugin, one, 'its ticket is too long');
        return;
    }
    one.allows.push({ plugin, ticket });
}

/** With `on-error = "allow"` it may have allowed, so it is told of an end that went wrong. */
function fail(plugin, one, reason) {
    if (plugin.about['on-error'] === 'allow') one.allows.push({ plugin, ticket: null });
    else one.refusal = { plugin: plugin.about.name, failed: reason };
}

async function settle(request, asked, usage, now) {
    const whole = { 'input-tokens': 0, 'output-tokens': 0, ...usage };
    const told = new Map();
    for (const { subject, allows } of asked) {
        for (const { plugin, ticket } of allows.filter((allow) => hears(allow, whole))) {
            const { id, model } = request;
            const subjectOf = { kind: subject.kind, id: subject.id };
            const settlement = { 'request-id': id, 'now-ms': now(), model, subject: subjectOf, ticket, usage: whole };
            told.set(plugin, [...(told.get(plugin) ?? []), settlement]);
        }
    }
    await Promise.all([...told].map(([plugin, settlements]) => tell(plugin, settlements)));
}

/** Every allow with a ticket is told; one without only what went wrong upstream. */
function hears({ ticket }, { ending, status }) {
    if (ticket !== null || ending === 'upstream-error' || ending === 'timed-out') return true;
    return (ending === 'completed' || ending === 'client-aborted') && (status ?? 0) >= 400;
}

async function tell(plugin, settlements) {
    for (let tried = 1; ; tried += 1) {
        try {
            return await plugin.call('settle', settlements);
        } catch (error) {
            console.error(error.message);
            if (!(error instanceof PluginError) || tried === SETTLE_TRIES) return undefined;
        }
    }
}
