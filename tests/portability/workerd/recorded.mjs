// Sends two requests to the gateway of an exported project and prints the rows that ingestion made of them, once they are there.

import { join } from 'node:path';

import { start } from '../tollgate/worker/local.mjs';

const runtime = start(join(import.meta.dirname, '..'));
try {
    const worker = await runtime.getWorker();
    for (const key of ['a-key', 'a-key']) {
        const request = { method: 'POST', headers: { authorization: `Bearer ${key}` }, body: '{"model": "demo"}' };
        await (await worker.fetch('http://localhost/v1/chat/completions', request)).text();
    }
    const database = await runtime.getD1Database('SQL_GATEWAY');
    const deadline = Date.now() + 60_000;
    let rows = [];
    while (rows.length < 2 && Date.now() < deadline) rows = await rowsOf(database);
    process.stdout.write(JSON.stringify(rows));
} finally {
    await runtime.dispose();
}

/** None before the plugin has made its table. */
async function rowsOf(database) {
    const [{ there }] = await all(database, "SELECT count(*) AS there FROM sqlite_master WHERE name = 'request_logs'");
    if (!there) return [];
    return all(database, 'SELECT status_code, total_tokens FROM request_logs ORDER BY status_code');
}

async function all(database, sql) {
    return (await database.prepare(sql).all()).results;
}
