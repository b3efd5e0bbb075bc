//! The tables. Every statement may run again, and later versions only add.

/// Columns of `request_logs` in the order in which rows are bound.
pub(crate) const COLUMNS: [&str; 29] = [
    "sequence",
    "id",
    "timestamp",
    "client_type",
    "client_ip",
    "user_agent",
    "client_key_hash",
    "client_name",
    "api_key_hash",
    "account_name",
    "model",
    "original_model",
    "endpoint",
    "response_time",
    "status_code",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "token_source",
    "cost",
    "is_stream",
    "has_error",
    "error_type",
    "error_message",
    "request_size",
    "response_size",
];

/// Columns that the tables have not had from the beginning, with their types. Their defaults let an earlier version of the
/// plugin insert on.
const ADDED: [(&str, &str, &str); 8] = [
    ("request_logs", "cache_read_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("request_logs", "cache_write_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("request_logs", "reasoning_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("request_logs", "token_source", "TEXT NOT NULL DEFAULT ''"),
    ("request_logs", "cost", "INTEGER"),
    ("request_logs", "error_type", "TEXT NOT NULL DEFAULT ''"),
    ("error_logs", "attempt", "INTEGER NOT NULL DEFAULT 0"),
    ("api_key_metrics", "total_cost", "INTEGER NOT NULL DEFAULT 0"),
];

/// Which columns those tables have.
pub(crate) const PRESENT: &str = "SELECT 'request_logs', name FROM pragma_table_info('request_logs')
    UNION ALL SELECT 'api_key_metrics', name FROM pragma_table_info('api_key_metrics')
    UNION ALL SELECT 'error_logs', name FROM pragma_table_info('error_logs')";

/// What adds the columns that are not among the present ones.
pub(crate) fn additions(present: &[(&str, &str)]) -> Vec<String> {
    let missing = ADDED.iter().filter(|(table, column, _)| !present.contains(&(table, column)));
    missing.map(|(table, column, kind)| format!("ALTER TABLE {table} ADD COLUMN {column} {kind}")).collect()
}

/// What `init` runs. The sequence is the row's id, so that rows are appended in order and none can be there twice.
/// A row of `error_logs` has the sequence of the request that failed, and attempt 0; an attempt that another one followed has its
/// number among them, from 1 on, and a sequence of its own below zero. (time, status) serves searches by time, and (key, model, time) those by key. Only rows with an error are in the index of
/// errors: nobody looks for the others by it.
pub(crate) const TABLES: [&str; 22] = [
    "CREATE TABLE IF NOT EXISTS ingestion_state (
        name TEXT PRIMARY KEY,
        last_sequence INTEGER NOT NULL
    ) WITHOUT ROWID",
    "INSERT OR IGNORE INTO ingestion_state (name, last_sequence) VALUES ('request_logs', 0)",
    "CREATE TABLE IF NOT EXISTS request_logs (
        sequence INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        client_type TEXT NOT NULL,
        client_ip TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        client_key_hash TEXT NOT NULL,
        client_name TEXT NOT NULL,
        api_key_hash TEXT NOT NULL,
        account_name TEXT NOT NULL,
        model TEXT NOT NULL,
        original_model TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        response_time INTEGER NOT NULL,
        status_code INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        total_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_tokens INTEGER NOT NULL DEFAULT 0,
        reasoning_tokens INTEGER NOT NULL DEFAULT 0,
        token_source TEXT NOT NULL DEFAULT '',
        cost INTEGER,
        is_stream INTEGER NOT NULL,
        has_error INTEGER NOT NULL,
        error_type TEXT NOT NULL DEFAULT '',
        error_message TEXT,
        request_size INTEGER NOT NULL,
        response_size INTEGER NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS request_logs_id ON request_logs (id)",
    "CREATE INDEX IF NOT EXISTS request_logs_time_status ON request_logs (timestamp, status_code)",
    "CREATE INDEX IF NOT EXISTS request_logs_key_model_time ON request_logs (api_key_hash, model, timestamp)",
    "CREATE INDEX IF NOT EXISTS request_logs_model ON request_logs (model)",
    "CREATE INDEX IF NOT EXISTS request_logs_status ON request_logs (status_code)",
    "CREATE INDEX IF NOT EXISTS request_logs_error ON request_logs (has_error) WHERE has_error = 1",
    "CREATE TABLE IF NOT EXISTS api_key_metrics (
        api_key_hash TEXT PRIMARY KEY,
        total_requests INTEGER NOT NULL DEFAULT 0,
        successful_requests INTEGER NOT NULL DEFAULT 0,
        failed_requests INTEGER NOT NULL DEFAULT 0,
        total_response_time INTEGER NOT NULL DEFAULT 0,
        average_response_time REAL NOT NULL DEFAULT 0,
        last_response_time INTEGER NOT NULL DEFAULT 0,
        min_response_time INTEGER,
        max_response_time INTEGER,
        is_healthy INTEGER NOT NULL DEFAULT 1,
        last_check INTEGER,
        consecutive_failures INTEGER NOT NULL DEFAULT 0,
        last_failure INTEGER,
        total_input_tokens INTEGER NOT NULL DEFAULT 0,
        total_output_tokens INTEGER NOT NULL DEFAULT 0,
        total_tokens INTEGER NOT NULL DEFAULT 0,
        total_cost INTEGER NOT NULL DEFAULT 0,
        last_used INTEGER,
        first_seen INTEGER,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_healthy ON api_key_metrics (is_healthy)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_used ON api_key_metrics (last_used)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_performance ON api_key_metrics (average_response_time)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_failures ON api_key_metrics (consecutive_failures)",
    "CREATE TABLE IF NOT EXISTS error_logs (
        sequence INTEGER PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        error_type TEXT NOT NULL,
        message TEXT NOT NULL,
        request_id TEXT NOT NULL,
        client_type TEXT NOT NULL,
        client_ip TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        method TEXT NOT NULL,
        client_key_hash TEXT NOT NULL,
        api_key_hash TEXT NOT NULL,
        status_code INTEGER NOT NULL,
        user_agent TEXT NOT NULL,
        referer TEXT NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0,
        context TEXT NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS error_logs_time ON error_logs (timestamp)",
    "CREATE INDEX IF NOT EXISTS error_logs_type_time ON error_logs (error_type, timestamp)",
    "CREATE INDEX IF NOT EXISTS error_logs_key_time ON error_logs (api_key_hash, timestamp)",
    "CREATE TABLE IF NOT EXISTS usage_daily (
        kind TEXT NOT NULL,
        key_hash TEXT NOT NULL,
        date TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        failed_requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        first_used INTEGER NOT NULL,
        last_used INTEGER NOT NULL,
        PRIMARY KEY (kind, key_hash, date, model)
    ) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS usage_daily_date ON usage_daily (date, kind)",
    "CREATE TABLE IF NOT EXISTS system_stats_keys (
        date TEXT NOT NULL,
        kind TEXT NOT NULL,
        key_hash TEXT NOT NULL,
        PRIMARY KEY (date, kind, key_hash)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS system_stats (
        date TEXT PRIMARY KEY,
        total_requests INTEGER NOT NULL,
        successful_requests INTEGER NOT NULL,
        failed_requests INTEGER NOT NULL,
        openai_requests INTEGER NOT NULL,
        claude_requests INTEGER NOT NULL,
        gemini_requests INTEGER NOT NULL,
        unknown_requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        total_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        total_response_time INTEGER NOT NULL,
        average_response_time REAL NOT NULL,
        min_response_time INTEGER NOT NULL,
        max_response_time INTEGER NOT NULL,
        error_rate REAL NOT NULL,
        timeouts INTEGER NOT NULL,
        rate_limits INTEGER NOT NULL,
        auth_errors INTEGER NOT NULL,
        request_bytes INTEGER NOT NULL,
        response_bytes INTEGER NOT NULL,
        stream_requests INTEGER NOT NULL,
        unique_keys INTEGER NOT NULL,
        active_accounts INTEGER NOT NULL
    ) WITHOUT ROWID",
];
