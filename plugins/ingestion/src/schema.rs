//! The tables. Every statement may run again, and later versions only add.

/// Columns of `request_logs` in the order in which rows are bound.
pub(crate) const COLUMNS: [&str; 26] = [
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
    "is_stream",
    "has_error",
    "error_message",
    "request_size",
    "response_size",
];

/// Columns that `request_logs` has not had from the beginning.
const ADDED: [&str; 3] = ["cache_read_tokens", "cache_write_tokens", "reasoning_tokens"];

/// Which columns `request_logs` has.
pub(crate) const PRESENT: &str = "SELECT name FROM pragma_table_info('request_logs')";

/// What adds the columns that are not among the present ones. Their default lets an earlier version insert on.
pub(crate) fn additions(present: &[&str]) -> Vec<String> {
    let missing = ADDED.iter().filter(|column| !present.contains(column));
    missing
        .map(|column| format!("ALTER TABLE request_logs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"))
        .collect()
}

/// What `init` runs. The sequence is the row's id, so that rows are appended in order and none can be there twice.
/// (time, status) serves searches by time, and (key, model, time) those by key. Only rows with an error are in the index of
/// errors: nobody looks for the others by it.
pub(crate) const TABLES: [&str; 14] = [
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
        is_stream INTEGER NOT NULL,
        has_error INTEGER NOT NULL,
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
        last_used INTEGER,
        first_seen INTEGER,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_healthy ON api_key_metrics (is_healthy)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_used ON api_key_metrics (last_used)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_performance ON api_key_metrics (average_response_time)",
    "CREATE INDEX IF NOT EXISTS api_key_metrics_failures ON api_key_metrics (consecutive_failures)",
];
