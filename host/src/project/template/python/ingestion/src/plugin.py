"""Sums up the tokens of each client by day, in a table of its own.

One plugin takes the events, so a server takes this one when the shipped `ingestion`, which writes the request log, is
switched off.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.ingestion import Receipt
from wit_world.imports.sql import Database, Statement, Value_Integer, Value_Text

TABLES = [
    "CREATE TABLE IF NOT EXISTS client_tokens (client TEXT, day INTEGER, tokens INTEGER, PRIMARY KEY (client, day))",
    "CREATE TABLE IF NOT EXISTS client_tokens_state (id INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO client_tokens_state VALUES (1, 0)",
]

# Events come at least once: in one transaction, one that counts an event moves the state past it, so that it never counts
# again.
ADD = """INSERT INTO client_tokens SELECT ?1, ?2, ?3 FROM client_tokens_state WHERE last < ?4
    ON CONFLICT DO UPDATE SET tokens = tokens + ?3"""
MOVE = "UPDATE client_tokens_state SET last = ?1 WHERE last < ?1"

DAY_MS = 86_400_000

# Opened at the first call: an instance serves many, and databases cannot be opened while it is made.
database = None


def batch(statements):
    global database
    try:
        database = database or Database.open("gateway")
        return database.batch(statements)
    except Err as error:
        # A text is the plugin's own error; any other exception would be a trap.
        raise Err(f"database gateway: {error.value}")


class Lifecycle(exports.Lifecycle):
    def init(self):
        batch([Statement(sql, []) for sql in TABLES])


class Ingestion(exports.Ingestion):
    def ingest(self, batch_of_events):
        outcomes = batch([statement for event in batch_of_events for statement in statements(event)])
        stored = sum(1 for moved in outcomes[1::2] if moved.rows_written > 0)
        return Receipt(stored, len(batch_of_events) - stored)


def integer(number):
    return Value_Integer(min(number, 2**63 - 1))


def statements(event):
    day, tokens = event.time_ms // DAY_MS, event.input_tokens + event.output_tokens
    sequence = integer(event.sequence)
    row = [Value_Text(event.client_name), integer(day), integer(tokens), sequence]
    return [Statement(ADD, row), Statement(MOVE, [sequence])]
