// Sums up the tokens of each client by day, in a table of its own.
//
// One plugin takes the events, so a server takes this one when the shipped `ingestion`, which writes the request log, is
// switched off.

import { Database } from "tollgate:storage/sql@0.1.0";

const TABLES = [
  "CREATE TABLE IF NOT EXISTS client_tokens (client TEXT, day INTEGER, tokens INTEGER, PRIMARY KEY (client, day))",
  "CREATE TABLE IF NOT EXISTS client_tokens_state (id INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
  "INSERT OR IGNORE INTO client_tokens_state VALUES (1, 0)",
];

// Events come at least once: in one transaction, one that counts an event moves the state past it, so that it never counts
// again.
const ADD = `INSERT INTO client_tokens SELECT ?1, ?2, ?3 FROM client_tokens_state WHERE last < ?4
  ON CONFLICT DO UPDATE SET tokens = tokens + ?3`;
const MOVE = "UPDATE client_tokens_state SET last = ?1 WHERE last < ?1";

const DAY_MS = 86_400_000n;

// Opened at the first call: an instance serves many, and databases cannot be opened while it is made.
let database;

function batch(statements) {
  try {
    database ??= Database.open("gateway");
    return database.batch(statements);
  } catch (error) {
    throw `database gateway: ${JSON.stringify(error.payload ?? String(error))}`; // The plugin's own error, and no trap.
  }
}

export const lifecycle = {
  init() {
    batch(TABLES.map((sql) => ({ sql, params: [] })));
  },
};

export const ingestion = {
  ingest(events) {
    const outcomes = batch(events.flatMap(statements));
    const stored = outcomes.filter((outcome, at) => at % 2 === 1 && outcome.rowsWritten > 0n).length;
    return { stored, repeated: events.length - stored };
  },
};

const MOST = 2n ** 63n - 1n;
const integer = (number) => ({ tag: "integer", val: number < MOST ? number : MOST });

function statements(event) {
  const [day, tokens] = [event.timeMs / DAY_MS, event.inputTokens + event.outputTokens];
  const sequence = integer(event.sequence);
  const row = [{ tag: "text", val: event.clientName }, integer(day), integer(tokens), sequence];
  return [{ sql: ADD, params: row }, { sql: MOVE, params: [sequence] }];
}
