//! Accounts of every dialect in one configuration. Their upstream is another gateway with its demo, so that each request
//! passes two.

use serde_json::{Value, json};

use crate::support::{Server, Setup, eventually};

/// What is asked in each dialect, and where the answer stands.
fn requests() -> [(&'static str, &'static str, Value, &'static str); 3] {
    [
        (
            "openai",
            "/v1/chat/completions",
            json!({ "model": "demo-chat", "messages": [{ "role": "user", "content": "Hello" }] }),
            "/choices/0/message/content",
        ),
        (
            "anthropic",
            "/v1/messages",
            json!({ "model": "demo-chat", "max_tokens": 50, "messages": [{ "role": "user", "content": "Hello" }] }),
            "/content/0/text",
        ),
        (
            "gemini",
            "/v1beta/models/demo-chat:generateContent",
            json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] }),
            "/candidates/0/content/parts/0/text",
        ),
    ]
}

fn header(dialect: &str) -> &'static str {
    match dialect {
        "anthropic" => "x-api-key",
        "gemini" => "x-goog-api-key",
        _ => "authorization",
    }
}

async fn ask(server: &Server, key: &str, dialect: &str, path: &str, body: &Value) -> (u16, Value) {
    let value = if dialect == "openai" { format!("Bearer {key}") } else { key.to_owned() };
    let answer = server.client("").post_with(path, header(dialect), &value, body).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_account_of_its_dialect_and_is_logged_as_of_it() {
    let upstream = Setup::demo().start();
    let upstream_key = upstream.key("gateway", &[]);
    let accounts = requests().map(|(dialect, ..)| {
        format!(
            "[[account]]\nname = \"{dialect}-main\"\ndialect = \"{dialect}\"\nbase_url = \"{}\"\napi_key = \"{upstream_key}\"\n",
            upstream.url()
        )
    });
    let server = Setup::default().config(&accounts.concat()).start();
    let key = server.key("user", &[]);
    for (dialect, path, body, place) in requests() {
        let (status, answer) = ask(&server, &key, dialect, path, &body).await;
        assert_eq!(status, 200, "{dialect}: {answer}");
        assert_eq!(answer.pointer(place), Some(&json!("You said: Hello")), "{dialect}");
        let (status, refused) = ask(&server, "tg-wrong", dialect, path, &body).await;
        assert!(matches!(status, 400 | 401), "{dialect}: {refused}");
    }
    let row = "SELECT client_type, account_name, input_tokens > 0, output_tokens FROM request_logs ORDER BY sequence";
    let expected = [
        ["openai", "openai-main", "1", "4"],
        ["claude", "anthropic-main", "1", "4"],
        ["gemini", "gemini-main", "1", "4"],
    ];
    eventually("every request is in the log", || async { (server.sql(row) == expected).then_some(()) }).await;
}
