// What a plugin may do in a database in Node: as Tollgate's authorizer has it, and never more.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SqliteEngine } from '../tollgate/node/sqlite.mjs';

const engine = new SqliteEngine(':memory:');
const own = engine.open('read-write');
own.batch(
    [
        'CREATE TABLE mine (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)',
        'CREATE TABLE seen (id INTEGER)',
        'CREATE TABLE secret (id INTEGER, key TEXT)',
        "INSERT INTO secret VALUES (1, 'k')",
        'CREATE VIEW peek AS SELECT key FROM secret',
    ].map((sql) => ({ sql, params: [] })),
);
const tables = engine.open({ Mine: 'read-write', seen: 'read', made: 'read-write', copy: 'read-write' });

const run = (database, sql) => database.batch([{ sql, params: [] }])[0];
const refused = (database, sql, tag) =>
    assert.throws(
        () => run(database, sql),
        (error) => error.payload?.tag === tag,
        sql,
    );

test('what is granted can be used, with all that belongs to it', () => {
    for (const sql of [
        "INSERT INTO mine (body) VALUES ('a') RETURNING id",
        'SELECT count(*) FROM mine JOIN seen USING (id)',
        'WITH one AS (SELECT 1 AS n) SELECT count(*) FROM one',
        'SELECT value FROM json_each(\'["a"]\')',
        'CREATE TABLE made (id INTEGER PRIMARY KEY, note TEXT UNIQUE)',
        'CREATE INDEX made_note ON made (note)',
        'ALTER TABLE made ADD COLUMN more TEXT',
        'UPDATE mine SET body = (SELECT count(*) FROM seen)',
        'DELETE FROM made',
        'SELECT name FROM pragma_table_info(\'made\')',
    ]) {
        run(tables, sql);
    }
});

test('what is not granted is denied, whatever the way to it', () => {
    for (const sql of [
        'SELECT key FROM secret',
        'SELECT count(*) FROM secret',
        'SELECT * FROM peek',
        'INSERT INTO seen VALUES (1)',
        'UPDATE mine SET body = (SELECT key FROM secret)',
        'INSERT INTO mine (body) SELECT key FROM secret',
        'CREATE TABLE made2 (id INTEGER)',
        'CREATE TABLE copy AS SELECT * FROM secret',
        'CREATE VIEW mine2 AS SELECT key FROM secret',
        'CREATE TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM secret; END',
        'DROP TABLE mine',
        'ALTER TABLE mine RENAME TO yours',
        'SELECT sql FROM sqlite_master',
        'PRAGMA table_info(secret)',
    ]) {
        refused(tables, sql, 'access-denied');
    }
});

test('files, transactions and the connection are closed to everybody', () => {
    for (const database of [own, tables]) {
        for (const sql of [
            "ATTACH '/tmp/other.sqlite' AS other",
            'COMMIT',
            'SAVEPOINT one',
            'CREATE TEMP TABLE t (id INTEGER)',
            'PRAGMA writable_schema = 1',
            'PRAGMA journal_mode = OFF',
            'CREATE VIRTUAL TABLE v USING dbstat',
        ]) {
            refused(database, sql, 'access-denied');
        }
        assert.throws(() => run(database, "VACUUM INTO '/tmp/copy.sqlite'"));
        refused(database, 'SELECT 1; DELETE FROM mine', 'invalid');
    }
    assert.equal(run(own, 'SELECT 1 -- and no more;').rows.length, 1);
});

test('a query writes nothing', () => {
    for (const database of [own, tables]) {
        assert.throws(
            () => database.query({ sql: 'DELETE FROM mine', params: [] }),
            (error) => error.payload?.tag === 'invalid',
        );
    }
    assert.equal(own.query({ sql: 'SELECT count(*) FROM mine', params: [] }).rows[0][0].val, 1n);
});
