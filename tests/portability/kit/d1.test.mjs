// What a plugin that may only read can do in D1, which SQLite stands for here.

import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';

import { D1Engine } from '../tollgate/worker/d1.mjs';

const database = new DatabaseSync(':memory:');
database.exec("CREATE TABLE t (x TEXT); INSERT INTO t VALUES ('a')");

/** As much of D1 as a query takes. */
const d1 = {
    prepare: (sql) => ({
        bind: (...params) => ({
            raw: async () => {
                const statement = database.prepare(sql);
                const rows = statement.all(...params).map((row) => Object.values(row));
                return [statement.columns().map(({ name }) => name), ...rows];
            },
        }),
    }),
};
const query = (sql, ...params) => new D1Engine(d1).open('read').query({ sql, params });

test('a query of D1 writes nothing, however it is quoted', async () => {
    for (const [sql, ...params] of [
        ['DELETE FROM t'],
        ["with a as (select 1) /*'*/ delete from t /*'*/"],
        ["with a as (select 1 as [']) delete from t where x <> '1'"],
        ["with a as (select 1 as `'`) delete from t where x <> '1'"],
        ["with a as (select 1) -- '\ndelete from t where x <> '1'"],
        ["with a as (select $b(') ) delete from t where x <> $c(')", null, '1'],
        ['select 1 /* ; */; delete from t'],
    ]) {
        const steps = database.prepare(`explain ${sql}`).all();
        assert.ok(steps.some(({ opcode }) => ['Delete', 'Clear'].includes(opcode)) || sql.startsWith('select'), sql);
        await assert.rejects(query(sql, ...params), (error) => error.payload?.tag === 'invalid', sql);
    }
    for (const sql of [
        "select x as [delete] from t where x <> 'it''s; delete' -- ; delete",
        '/* delete */ with "update" as (select x from t) select * from "update";',
        'values (1) -- no more',
    ]) {
        assert.equal((await query(sql)).rows.length, 1, sql);
    }
});
