//! What kind of client sends a request, as far as it says so itself: a rule for honest clients, which keeps a key to the
//! tool it was made for, and no protection against others.

use http::HeaderMap;
use http::header::USER_AGENT;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// Claude Code: a user agent that starts with `claude-cli/`.
    ClaudeCode,
    /// Codex: a user agent that starts with `codex`.
    Codex,
    /// Gemini CLI: a user agent that starts with `GeminiCLI/`.
    GeminiCli,
    /// An SDK of OpenAI: a user agent that starts with `OpenAI/` or `AsyncOpenAI/`.
    OpenaiSdk,
    /// An SDK of Anthropic: a user agent that starts with `Anthropic/` or `AsyncAnthropic/`.
    AnthropicSdk,
    /// An SDK of Google: a user agent or `x-goog-api-client` that starts with `google-genai-sdk/`.
    GoogleSdk,
    /// Any other.
    Other,
}

/// What the user agents of each kind start with.
const USER_AGENTS: [(&str, ClientKind); 8] = [
    ("claude-cli/", ClientKind::ClaudeCode),
    ("codex", ClientKind::Codex),
    ("GeminiCLI/", ClientKind::GeminiCli),
    ("OpenAI/", ClientKind::OpenaiSdk),
    ("AsyncOpenAI/", ClientKind::OpenaiSdk),
    ("Anthropic/", ClientKind::AnthropicSdk),
    ("AsyncAnthropic/", ClientKind::AnthropicSdk),
    ("google-genai-sdk/", ClientKind::GoogleSdk),
];

impl ClientKind {
    /// The kind that a request's headers tell.
    pub fn of(headers: &HeaderMap) -> ClientKind {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let agent = text(USER_AGENT.as_str()).unwrap_or_default();
        let by_agent = USER_AGENTS.iter().find(|(start, _)| agent.starts_with(start)).map(|(_, kind)| *kind);
        by_agent.unwrap_or_else(|| match text("x-goog-api-client") {
            Some(client) if client.starts_with("google-genai-sdk/") => ClientKind::GoogleSdk,
            _ => ClientKind::Other,
        })
    }

    /// Its name in a key's settings.
    pub fn name(self) -> &'static str {
        match self {
            ClientKind::ClaudeCode => "claude-code",
            ClientKind::Codex => "codex",
            ClientKind::GeminiCli => "gemini-cli",
            ClientKind::OpenaiSdk => "openai-sdk",
            ClientKind::AnthropicSdk => "anthropic-sdk",
            ClientKind::GoogleSdk => "google-sdk",
            ClientKind::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_is_known_by_what_it_says() {
        for (name, value, kind) in [
            ("user-agent", "claude-cli/2.0.14 (external, cli)", "claude-code"),
            ("user-agent", "codex_cli_rs/0.50.0 (Ubuntu 24.4.0; x86_64)", "codex"),
            ("user-agent", "GeminiCLI/0.9.0/gemini-2.5-pro (linux; x64)", "gemini-cli"),
            ("user-agent", "OpenAI/Python 1.109.1", "openai-sdk"),
            ("user-agent", "AsyncOpenAI/Python 1.109.1", "openai-sdk"),
            ("user-agent", "Anthropic/JS 0.65.0", "anthropic-sdk"),
            ("user-agent", "google-genai-sdk/1.38.0 gl-python/3.12", "google-sdk"),
            ("x-goog-api-client", "google-genai-sdk/1.20.0 gl-node/v22", "google-sdk"),
            ("user-agent", "curl/8.5.0", "other"),
            ("x-other", "", "other"),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            let found = ClientKind::of(&headers);
            assert_eq!(found.name(), kind, "{value}");
            assert_eq!(serde_json::to_value(found).unwrap(), kind, "as it is written in settings");
        }
    }
}
