// What a plugin may do in a database, as SQLite asks before it runs a statement: as Tollgate's own authorizer has it.

import { constants as sqlite } from 'node:sqlite';

const { SQLITE_OK: OK, SQLITE_DENY: DENY } = sqlite;

/** Actions that reach files, transactions or what lives in the connection, which callers share. */
const CLOSED = new Set([
    sqlite.SQLITE_ATTACH,
    sqlite.SQLITE_DETACH,
    sqlite.SQLITE_CREATE_TEMP_INDEX,
    sqlite.SQLITE_CREATE_TEMP_TABLE,
    sqlite.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite.SQLITE_CREATE_TEMP_VIEW,
    sqlite.SQLITE_CREATE_VTABLE,
    sqlite.SQLITE_TRANSACTION,
    sqlite.SQLITE_SAVEPOINT,
]);

/** Pragmas that show the tables they name, and nothing else. */
const TABLE_PRAGMAS = new Set(['table_info', 'table_xinfo', 'index_list', 'foreign_key_list']);

/** Table-valued functions that show nothing but their arguments. */
const PURE_TABLES = new Set(['json_each', 'json_tree', 'jsonb_each', 'jsonb_tree']);

/** Functions that reach out of the database, or that ALTER TABLE uses for what a grant of tables does not allow. */
const CLOSED_FUNCTIONS = new Set(['load_extension', 'fts3_tokenizer']);
const CLOSED_TO_TABLES = new Set([
    'sqlite_rename_table',
    'sqlite_rename_column',
    'sqlite_drop_column',
    'sqlite_drop_constraint',
]);

const SCHEMA = new Set(['sqlite_master', 'sqlite_schema']);

/**
 * What SQLite is to be answered while one statement is prepared and run. `grant`: `read`, `read-write`, or one of them
 * by table; `names`: of the tables and views there are, in lower case.
 */
export function authorizer(grant, sql, names) {
    const allowed = typeof grant === 'string' ? () => true : tableRules(grant, sql, names);
    return (action, first, second, database) => {
        const one = first?.toLowerCase();
        if (CLOSED.has(action)) return DENY;
        if (action === sqlite.SQLITE_FUNCTION && CLOSED_FUNCTIONS.has(second?.toLowerCase())) return DENY;
        if (action === sqlite.SQLITE_PRAGMA && !TABLE_PRAGMAS.has(one)) return DENY;
        if (database === 'temp' && action === sqlite.SQLITE_INSERT) return DENY;
        return allowed(action, one, second?.toLowerCase()) ? OK : DENY;
    };
}

function tableRules(grant, sql, names) {
    const creates = /^\s*create\b/i.test(sql);
    const adds = /^\s*alter\s+table\b/i.test(sql) && /\badd\b/i.test(sql);
    const rights = new Map(Object.entries(grant).map(([table, right]) => [table.toLowerCase(), right]));
    const writable = (table) => rights.get(table) === 'read-write';
    const reads = (table, column) => {
        if (rights.has(table) || PURE_TABLES.has(table)) return true;
        if (TABLE_PRAGMAS.has(table.replace(/^pragma_/, ''))) return true;
        if (SCHEMA.has(table)) return adds || (creates && column === 'rowid');
        if (adds && table === 'pragma_quick_check') return true;
        // Without a column it may be a part of the statement, such as a subquery, and no table at all.
        return column === '' && !names.has(table);
    };
    return (action, one, two) => {
        switch (action) {
            case sqlite.SQLITE_RECURSIVE:
                return true;
            // A table made from a SELECT could copy the schema, which SQLite must be able to read for CREATE.
            case sqlite.SQLITE_SELECT:
                return !creates;
            case sqlite.SQLITE_FUNCTION:
                return creates || !CLOSED_TO_TABLES.has(two);
            case sqlite.SQLITE_READ:
                return reads(one, two);
            case sqlite.SQLITE_INSERT:
            case sqlite.SQLITE_UPDATE:
                return SCHEMA.has(one) ? creates || adds : writable(one);
            case sqlite.SQLITE_DELETE:
                return writable(one);
            case sqlite.SQLITE_CREATE_TABLE:
                return one === 'sqlite_sequence' || writable(one);
            case sqlite.SQLITE_CREATE_INDEX:
                return writable(two);
            case sqlite.SQLITE_ALTER_TABLE:
                return adds && writable(two);
            case sqlite.SQLITE_REINDEX:
                return creates;
            case sqlite.SQLITE_PRAGMA:
                return two !== undefined && rights.has(two);
            default:
                return false;
        }
    };
}
