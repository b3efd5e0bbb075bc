//! Random statements over a schema with something of everything.

use tollgate_store::{Statement, Value};

const SCHEMA: &[&str] = &[
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, weight INTEGER CHECK (weight < 90),
        cost REAL, body BLOB, twice INTEGER AS (weight * 2) VIRTUAL, kept TEXT AS (upper(name)) STORED)",
    "CREATE TABLE usage (model TEXT, day INTEGER NOT NULL, tokens, PRIMARY KEY (model, day)) WITHOUT ROWID",
    "CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT,
        account INTEGER REFERENCES accounts (id) ON DELETE CASCADE ON UPDATE SET NULL,
        status INTEGER NOT NULL DEFAULT 200, label TEXT UNIQUE, detail TEXT, spent REAL) STRICT",
    "CREATE TABLE notes (n INTEGER, body TEXT, author REFERENCES accounts (name) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE changes (at INTEGER PRIMARY KEY, what TEXT, id INTEGER)",
    "CREATE INDEX requests_status ON requests (status, account)",
    "CREATE INDEX requests_failed ON requests (account) WHERE status >= 400",
    "CREATE INDEX accounts_size ON accounts (length(name), weight DESC)",
    "CREATE VIEW spending AS SELECT a.name, count(r.id) AS requests, total(r.spent) AS spent
        FROM accounts a LEFT JOIN requests r ON r.account = a.id GROUP BY a.id",
    "CREATE TRIGGER requests_deleted AFTER DELETE ON requests BEGIN
        INSERT INTO changes (what, id) VALUES ('deleted', old.id); END",
    "CREATE TRIGGER accounts_weight AFTER UPDATE OF weight ON accounts WHEN new.weight > 50 BEGIN
        INSERT INTO changes (what, id) VALUES ('heavy', new.id); END",
    "CREATE TRIGGER spending_insert INSTEAD OF INSERT ON spending BEGIN
        INSERT INTO accounts (name) VALUES (new.name); END",
    "CREATE VIRTUAL TABLE words USING fts5 (body)",
];

/// Name, columns with what they hold, and those that can be written.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    written: &'static [(&'static str, Kind)],
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Id,
    Integer,
    Real,
    Text,
    Blob,
    Any,
}

const TABLES: &[Table] = &[
    Table {
        name: "accounts",
        columns: &["id", "name", "weight", "cost", "body", "twice", "kept"],
        written: &[
            ("id", Kind::Id),
            ("name", Kind::Text),
            ("weight", Kind::Integer),
            ("cost", Kind::Real),
            ("body", Kind::Blob),
        ],
    },
    Table {
        name: "usage",
        columns: &["model", "day", "tokens"],
        written: &[("model", Kind::Text), ("day", Kind::Integer), ("tokens", Kind::Any)],
    },
    Table {
        name: "requests",
        columns: &["id", "account", "status", "label", "detail", "spent"],
        written: &[
            ("account", Kind::Id),
            ("status", Kind::Integer),
            ("label", Kind::Text),
            ("detail", Kind::Text),
            ("spent", Kind::Real),
        ],
    },
    Table {
        name: "notes",
        columns: &["n", "body", "author"],
        written: &[("n", Kind::Integer), ("body", Kind::Any), ("author", Kind::Text)],
    },
];

/// Makes calls; equal seeds make equal calls.
pub(super) struct Generator {
    state: u64,
    params: Vec<Value>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, params: Vec::new() }
    }

    pub(super) fn schema() -> impl Iterator<Item = &'static str> {
        SCHEMA.iter().copied()
    }

    /// Queries that show all there is.
    pub(super) fn contents() -> impl Iterator<Item = String> {
        let tables = ["accounts", "usage", "requests", "notes", "changes", "spending"];
        let contents = tables.map(|table| format!("SELECT * FROM {table} ORDER BY 1, 2"));
        let rest = [
            "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
            "SELECT rowid, body FROM words ORDER BY rowid",
            "SELECT * FROM sqlite_sequence",
            "PRAGMA integrity_check",
            "PRAGMA foreign_key_check",
        ];
        contents.into_iter().chain(rest.map(str::to_owned))
    }

    /// One statement, or a batch of a few.
    pub(super) fn call(&mut self) -> Vec<Statement> {
        let statements = if self.one_in(8) { 2 + self.below(4) } else { 1 };
        (0..statements).map(|_| self.statement(statements == 1)).collect()
    }

    fn statement(&mut self, alone: bool) -> Statement {
        self.params.clear();
        let sql = match self.below(100) {
            0..=24 => self.insert(),
            25..=34 => self.update(),
            35..=40 => self.delete(),
            41..=79 => self.select(),
            80..=87 => self.compound(),
            88..=91 => self.search(),
            92..=96 => self.inspect(),
            _ if alone => self.change_schema(),
            _ => self.insert(),
        };
        Statement::new(sql, std::mem::take(&mut self.params))
    }

    // Statements.

    fn insert(&mut self) -> String {
        if self.one_in(12) {
            let body = self.text();
            return format!("INSERT INTO words (body) VALUES ({})", self.literal(body.into()));
        }
        if self.one_in(25) {
            let name = self.value(Kind::Text);
            return format!("INSERT INTO spending (name) VALUES ({name})");
        }
        let table = self.table();
        let mut written = table.written.to_vec();
        written.retain(|_| !self.one_in(5));
        let written = if written.is_empty() { table.written.to_vec() } else { written };
        let verb =
            self.pick(&["INSERT", "INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL"]);
        let names: Vec<_> = written.iter().map(|(name, _)| *name).collect();
        let rows = 1 + self.below(3);
        let rows: Vec<_> = (0..rows).map(|_| format!("({})", self.values(&written))).collect();
        let names = names.join(", ");
        let mut sql = format!("{verb} INTO {} ({names}) VALUES {}", table.name, rows.join(", "));
        if verb == "INSERT" && self.one_in(2) {
            sql += &match (table.name, self.below(3)) {
                (_, 0) => " ON CONFLICT DO NOTHING".to_owned(),
                ("usage", _) => {
                    " ON CONFLICT (model, day) DO UPDATE SET tokens = excluded.tokens || tokens".to_owned()
                }
                ("accounts", _) => {
                    let condition = self.condition(&["accounts.weight", "excluded.cost"]);
                    format!(
                        " ON CONFLICT (name) DO UPDATE SET weight = coalesce(weight, 0) + 1 WHERE {condition}"
                    )
                }
                ("requests", _) => {
                    " ON CONFLICT (label) DO UPDATE SET status = status + 1, detail = excluded.detail"
                        .to_owned()
                }
                _ => String::new(),
            };
        }
        sql + &self.returning(table)
    }

    fn update(&mut self) -> String {
        let table = self.table();
        let (column, kind) = self.pick(table.written);
        let verb = self.pick(&["UPDATE", "UPDATE", "UPDATE OR IGNORE", "UPDATE OR REPLACE"]);
        if table.name == "requests" && self.one_in(3) {
            let condition = self.condition(&["requests.status", "a.weight"]);
            return format!(
                "{verb} requests SET detail = a.name FROM accounts a WHERE a.id = requests.account AND ({condition})"
            );
        }
        let value = if self.one_in(2) { self.value(kind) } else { self.expression(table.columns, 2) };
        let condition = self.condition(table.columns);
        format!("{verb} {} SET {column} = {value} WHERE {condition}", table.name) + &self.returning(table)
    }

    fn delete(&mut self) -> String {
        let table = self.table();
        if self.one_in(6) {
            // Keeps the tables small, so that joins stay so too.
            return format!("DELETE FROM {}", table.name);
        }
        let condition = self.condition(table.columns);
        format!("DELETE FROM {} WHERE {condition}", table.name) + &self.returning(table)
    }

    fn select(&mut self) -> String {
        match self.below(6) {
            0 => self.join(),
            1 => self.aggregate(),
            2 => self.window(),
            3 => self.with(),
            _ => {
                let table = self.table();
                self.plain(table)
            }
        }
    }

    fn plain(&mut self, table: &Table) -> String {
        let columns: Vec<_> = (0..1 + self.below(3)).map(|_| self.expression(table.columns, 3)).collect();
        let distinct = if self.one_in(4) { "DISTINCT " } else { "" };
        let order = self.pick(table.columns);
        let direction = self.pick(&["", " DESC", " NULLS LAST", " DESC NULLS FIRST", " COLLATE NOCASE"]);
        let condition = self.condition(table.columns);
        let mut sql = format!(
            "SELECT {distinct}{} FROM {} WHERE {condition} ORDER BY {order}{direction}",
            columns.join(", "),
            table.name
        );
        if self.one_in(3) {
            sql += &format!(" LIMIT {} OFFSET {}", self.below(10), self.below(4));
        }
        sql
    }

    fn join(&mut self) -> String {
        let kind = self.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"]);
        let (first, second) = (self.table(), self.table());
        let columns: Vec<_> = first
            .columns
            .iter()
            .map(|column| format!("x.{column}"))
            .chain(second.columns.iter().map(|column| format!("y.{column}")))
            .collect();
        let columns: Vec<_> = columns.iter().map(String::as_str).collect();
        let on = if kind == "CROSS JOIN" {
            String::new()
        } else {
            let (left, right) = (self.pick(first.columns), self.pick(second.columns));
            format!(" ON x.{left} = y.{right}")
        };
        let shown = self.expression(&columns, 2);
        let condition = self.condition(&columns);
        format!(
            "SELECT {shown}, x.{}, y.{} FROM {} x {kind} {} y{on} WHERE {condition} ORDER BY 1, 2, 3 LIMIT 50",
            first.columns[0], second.columns[0], first.name, second.name
        )
    }

    fn aggregate(&mut self) -> String {
        let table = self.table();
        let (group, of) = (self.pick(table.columns), self.expression(table.columns, 1));
        let function =
            self.pick(&["count", "sum", "total", "avg", "min", "max", "group_concat", "json_group_array"]);
        let distinct = if self.one_in(4) { "DISTINCT " } else { "" };
        let filter = if self.one_in(4) {
            format!(" FILTER (WHERE {})", self.condition(table.columns))
        } else {
            String::new()
        };
        let having = if self.one_in(3) { " HAVING count(*) > 1" } else { "" };
        let name = table.name;
        // A blob does not go into JSON.
        let of = if function == "json_group_array" { format!("hex({of})") } else { of };
        format!(
            "SELECT {group}, count(*), {function}({distinct}{of}){filter} FROM {name} GROUP BY {group}{having} ORDER BY 1, 2"
        )
    }

    fn window(&mut self) -> String {
        let table = self.table();
        let function = self.pick(&[
            "row_number()",
            "rank()",
            "dense_rank()",
            "ntile(3)",
            "lag(#, 1, 'none')",
            "lead(#)",
            "first_value(#)",
            "nth_value(#, 2)",
            "count(#)",
            "total(#)",
            "max(#)",
        ]);
        let function = match function.split_once('#') {
            Some((head, tail)) => format!("{head}{}{tail}", self.expression(table.columns, 1)),
            None => function.to_owned(),
        };
        let frame = self.pick(&[
            "",
            "",
            " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
            " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW",
        ]);
        let (partition, key) = (self.pick(table.columns), table.columns[0]);
        let second = table.columns[1];
        format!(
            "SELECT {key}, {function} OVER (PARTITION BY {partition} ORDER BY {key}, {second}{frame}) FROM {} ORDER BY 1, 2",
            table.name
        )
    }

    fn with(&mut self) -> String {
        let table = self.table();
        if self.one_in(3) {
            let (most, step) = (self.below(30), 1 + self.below(3));
            let condition = self.condition(&["n.i"]);
            return format!(
                "WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + {step} FROM n WHERE i < {most})
                 SELECT i, (SELECT count(*) FROM {} WHERE {} > n.i) FROM n WHERE {condition} ORDER BY i",
                table.name, table.columns[0]
            );
        }
        let materialized = self.pick(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
        let inner = self.plain(table);
        format!("WITH part AS {materialized}({inner}) SELECT count(*), (SELECT count(*) FROM part) FROM part")
    }

    fn compound(&mut self) -> String {
        let operator = self.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
        let (first, second) = (self.table(), self.table());
        let (left, right) = (self.expression(first.columns, 2), self.expression(second.columns, 2));
        let (one, other) = (self.condition(first.columns), self.condition(second.columns));
        format!(
            "SELECT {left} FROM {} WHERE {one} {operator} SELECT {right} FROM {} WHERE {other} ORDER BY 1 LIMIT 40",
            first.name, second.name
        )
    }

    fn search(&mut self) -> String {
        let word = self.pick(&[
            "alpha",
            "beta",
            "gam*",
            "alpha AND beta",
            "alpha NOT beta",
            "\"",
            "NEAR(alpha beta, 2)",
        ]);
        let word = self.literal(Value::from(word));
        match self.below(3) {
            0 => format!("SELECT rowid, body FROM words WHERE words MATCH {word} ORDER BY rank, rowid"),
            1 => format!("SELECT highlight(words, 0, '<', '>') FROM words ({word}) ORDER BY rowid"),
            _ => format!(
                "DELETE FROM words WHERE rowid IN (SELECT rowid FROM words WHERE words MATCH {word} LIMIT 1)"
            ),
        }
    }

    fn inspect(&mut self) -> String {
        let fixed = [
            "SELECT * FROM spending ORDER BY name",
            "PRAGMA foreign_key_check",
            "PRAGMA table_xinfo(accounts)",
            "SELECT name FROM pragma_index_list('requests') ORDER BY 1",
            "SELECT what, count(*) FROM changes GROUP BY 1 ORDER BY 1",
            "SELECT type, name FROM sqlite_schema ORDER BY 1, 2",
            "SELECT * FROM json_each('{\"a\": [1, 2.5], \"b\": null}')",
            "SELECT no_such_column FROM accounts",
            "SELECT * FROM no_such_table",
            "SELEC 1",
            "INSERT INTO requests (status) VALUES ('text')",
            "SELECT key, atom FROM json_tree('[[1, \"x\"], true]') ORDER BY id",
        ];
        self.pick(&fixed).to_owned()
    }

    fn change_schema(&mut self) -> String {
        let number = self.below(3);
        match self.below(8) {
            0 => format!("CREATE INDEX extra_{number} ON requests (detail, status)"),
            1 => format!("CREATE UNIQUE INDEX IF NOT EXISTS extra_{number} ON notes (n, body)"),
            2 => format!("DROP INDEX IF EXISTS extra_{number}"),
            3 => format!("CREATE TABLE more_{number} AS SELECT * FROM accounts"),
            4 => format!("DROP TABLE IF EXISTS more_{number}"),
            5 => format!("ALTER TABLE more_{number} RENAME COLUMN cost TO price"),
            6 => format!("ALTER TABLE more_{number} ADD COLUMN added TEXT NOT NULL DEFAULT 'x'"),
            // No ANALYZE: each connection takes its figures into its plans in its own time, and with them the order of rows
            // that nothing orders.
            _ => self.pick(&["REINDEX", "VACUUM"]).to_owned(),
        }
    }

    // Parts of statements.

    fn returning(&mut self, table: &Table) -> String {
        if self.one_in(3) {
            format!(" RETURNING {}, {} AS shown", table.columns[0], self.expression(table.columns, 1))
        } else {
            String::new()
        }
    }

    fn values(&mut self, written: &[(&str, Kind)]) -> String {
        let values: Vec<_> = written.iter().map(|(_, kind)| self.value(*kind)).collect();
        values.join(", ")
    }

    /// A value that mostly fits the column.
    fn value(&mut self, kind: Kind) -> String {
        let value = match kind {
            _ if self.one_in(14) => Value::Null,
            Kind::Id => Value::Integer(self.below(12) as i64),
            Kind::Integer => Value::Integer(self.below(95) as i64 - 2),
            Kind::Real => Value::Real(self.below(1_000) as f64 / 8.0),
            Kind::Text => Value::Text(self.text()),
            Kind::Blob => Value::Blob((0..self.below(5)).map(|_| self.below(256) as u8).collect()),
            Kind::Any => self.odd(),
        };
        self.literal(value)
    }

    fn text(&mut self) -> String {
        let words = [
            "alpha",
            "Beta",
            "gamma",
            "ALPHA",
            "späť",
            "",
            "10",
            "0x1",
            "-2.5",
            "a%b_c",
            "it's",
            "{\"k\": [1]}",
        ];
        let count = 1 + self.below(2);
        let words: Vec<_> = (0..count).map(|_| self.pick(&words)).collect();
        words.join(" ")
    }

    /// Values at the edges.
    fn odd(&mut self) -> Value {
        match self.below(11) {
            0 => Value::Integer(i64::MAX),
            1 => Value::Integer(i64::MIN),
            2 => Value::Real(1e308),
            3 => Value::Real(-0.0),
            4 => Value::Real(0.1),
            5 => Value::Null,
            6 => Value::Blob(vec![0, 255]),
            7 => Value::Text("\u{1f600}".to_owned()),
            _ => Value::Integer(self.below(5) as i64),
        }
    }

    /// A value in the text or as a parameter.
    fn literal(&mut self, value: Value) -> String {
        if self.one_in(2) {
            self.params.push(value);
            return format!("?{}", self.params.len());
        }
        match value {
            Value::Null => "NULL".to_owned(),
            // The least integer has no literal.
            Value::Integer(i64::MIN) => "(-9223372036854775807 - 1)".to_owned(),
            Value::Integer(integer) => integer.to_string(),
            Value::Real(real) => format!("{real:?}"),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Blob(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("x'{digits}'")
            }
        }
    }

    fn condition(&mut self, columns: &[&str]) -> String {
        match self.below(9) {
            0 => "true".to_owned(),
            1 => format!("{} IS NOT NULL", self.expression(columns, 1)),
            2 => format!("{} LIKE '%a%'", self.expression(columns, 1)),
            3 => format!("{} BETWEEN {} AND 60", self.expression(columns, 1), self.below(30)),
            4 => {
                let (of, one, other) = (self.expression(columns, 1), self.odd(), self.odd());
                format!("{of} NOT IN ({}, {})", self.literal(one), self.literal(other))
            }
            5 => format!("{} IN (SELECT weight FROM accounts)", self.expression(columns, 1)),
            6 => format!("EXISTS (SELECT 1 FROM requests r WHERE r.account = {})", self.pick(columns)),
            _ => {
                let operator = self.pick(&["=", "<>", "<", ">=", "IS", "IS DISTINCT FROM"]);
                let (left, right) = (self.expression(columns, 1), self.expression(columns, 1));
                format!("{left} {operator} {right}")
            }
        }
    }

    fn expression(&mut self, columns: &[&str], depth: usize) -> String {
        if depth == 0 || self.one_in(3) {
            return match self.below(5) {
                0 => {
                    let value = self.odd();
                    self.literal(value)
                }
                _ => self.pick(columns).to_owned(),
            };
        }
        let one = self.expression(columns, depth - 1);
        match self.below(17) {
            0 => format!("({one} + {})", self.expression(columns, depth - 1)),
            1 => format!("({one} * {})", self.expression(columns, depth - 1)),
            2 => format!("({one} % {})", self.expression(columns, depth - 1)),
            3 => format!("({one} || {})", self.expression(columns, depth - 1)),
            4 => format!("coalesce({one}, {})", self.expression(columns, depth - 1)),
            5 => format!("CASE WHEN {one} THEN 1 WHEN {one} IS NULL THEN 'none' ELSE 2.5 END"),
            6 => {
                let kind = self.pick(&["INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC"]);
                format!("CAST({one} AS {kind})")
            }
            7 => {
                let function =
                    self.pick(&["length", "upper", "lower", "hex", "typeof", "quote", "trim", "unicode"]);
                format!("{function}({one})")
            }
            8 => format!("substr({one}, {}, {})", self.below(4) as i64 - 1, self.below(4)),
            9 => format!("round({one}, {})", self.below(3)),
            10 => format!("nullif({one}, {})", self.expression(columns, depth - 1)),
            11 => format!("(SELECT max(weight) FROM accounts WHERE weight < {one})"),
            12 => format!("(-{one})"),
            13 => format!("instr({one}, {})", self.expression(columns, depth - 1)),
            14 => format!(
                "replace({one}, {}, {})",
                self.expression(columns, depth - 1),
                self.expression(columns, depth - 1)
            ),
            15 => {
                let function = self.pick(&["trim", "ltrim", "rtrim", "unhex"]);
                format!("{function}({one}, {})", self.expression(columns, depth - 1))
            }
            _ => format!(
                "iif({one} > 3, date(abs({}), 'unixepoch'), printf('%05.1f', {one}))",
                self.below(100_000)
            ),
        }
    }

    // Chance.

    fn table(&mut self) -> &'static Table {
        self.pick(&[&TABLES[0], &TABLES[0], &TABLES[1], &TABLES[2], &TABLES[2], &TABLES[3]])
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn below(&mut self, end: usize) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
