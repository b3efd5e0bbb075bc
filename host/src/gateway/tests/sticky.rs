//! Sessions, which stay on their accounts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use super::support::{Upstream, World, json_response};
use crate::{
    gateway::{AccountSpec, Dialect, Settings, Strategy, place::Place},
    keys::NewKey,
    limit_set::LimitSet,
};

/// Two equal accounts, and a request that goes to the better one.
struct Two {
    upstream: Upstream,
    world: World,
    fails: Arc<AtomicBool>,
    dialect: Dialect,
}

impl Two {
    async fn start(dialect: Dialect, settings: Settings) -> Two {
        let fails = Arc::new(AtomicBool::new(false));
        let state = fails.clone();
        let upstream = Upstream::start(move |received| {
            let fail = state.load(Ordering::Relaxed) && account(received) == "one";
            Some(json_response(if fail { 500 } else { 200 }, "{}"))
        })
        .await;
        let spec = |name: &str| AccountSpec { models: Vec::new(), dialect, ..upstream.account(name) };
        let world = World::with(vec![spec("one"), spec("other")], settings).await;
        Two { upstream, world, fails, dialect }
    }

    /// Makes one of the two the worse one, as long as this is kept.
    fn busy(&self, name: &str) -> Vec<Place> {
        let accounts = self.world.gateway.0.accounts.list();
        let account = accounts.iter().find(|account| *account.name == *name).unwrap();
        (0..20_000).map(|_| Place::take(account).unwrap()).collect()
    }

    /// Sends a request; the account that answered it.
    async fn ask(&self, key: &str, header: Option<(&str, &str)>, fields: Value) -> String {
        let mut body = json!({ "model": "m", "messages": [], "max_tokens": 5, "contents": [] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let path = match self.dialect {
            Dialect::OpenAi => "/v1/chat/completions",
            Dialect::Anthropic => "/v1/messages",
            Dialect::Gemini => "/v1beta/models/m:generateContent",
        };
        let name = if self.dialect == Dialect::OpenAi { "authorization" } else { "x-goog-api-key" };
        let name = if self.dialect == Dialect::Anthropic { "x-api-key" } else { name };
        let value = if name == "authorization" { format!("Bearer {key}") } else { key.to_owned() };
        let mut request = Request::post(format!("{}{path}", self.world.url)).header(name, value);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = self.world.request(request.body(Full::from(body.to_string())).unwrap()).await;
        assert_eq!(response.status(), 200);
        account(self.upstream.seen().last().unwrap())
    }

    async fn ask_in(&self, session: &str) -> String {
        self.ask(&self.world.key, Some(("x-session-id", session)), json!({})).await
    }
}

fn account(received: &super::support::Received) -> String {
    let header = |name| received.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let key = header("authorization").or_else(|| header("x-api-key")).or_else(|| header("x-goog-api-key"));
    key.unwrap().trim_start_matches("Bearer ").to_owned()
}

#[tokio::test]
async fn a_session_stays_on_its_account_however_the_client_names_it() {
    use Dialect::{Anthropic, Gemini, OpenAi};
    for (dialect, header, fields) in [
        (OpenAi, None, json!({ "prompt_cache_key": "s" })),
        (OpenAi, None, json!({ "conversation": { "id": "conv_1" } })),
        (OpenAi, Some("session_id"), json!({})),
        (Anthropic, None, json!({ "metadata": { "user_id": "user_1_session_2" } })),
        (Anthropic, Some("x-claude-code-session-id"), json!({ "metadata": null })),
        (Gemini, None, json!({ "cachedContent": "cachedContents/1" })),
        (Gemini, Some("x-session-id"), json!({})),
    ] {
        let two = Two::start(dialect, Settings::default()).await;
        let key = &two.world.key;
        let busy = two.busy("other");
        let header = header.map(|name| (name, "a-session"));
        assert_eq!(two.ask(key, header, fields.clone()).await, "one");
        drop(busy);
        let _busy = two.busy("one");
        for _ in 0..5 {
            assert_eq!(two.ask(key, header, fields.clone()).await, "one", "{header:?} {fields}");
            assert_eq!(two.ask(key, None, json!({})).await, "other", "what is of no session goes by load");
        }
    }
}

#[tokio::test]
async fn a_session_is_of_one_key_and_one_model() {
    let two = Two::start(Dialect::OpenAi, Settings::default()).await;
    let other =
        two.world.keys.create(NewKey { name: "other".to_owned(), ..NewKey::default() }).await.unwrap();
    let busy = two.busy("other");
    assert_eq!(two.ask_in("s").await, "one");
    drop(busy);
    let _busy = two.busy("one");
    assert_eq!(two.ask_in("another").await, "other");
    let header = Some(("x-session-id", "s"));
    assert_eq!(two.ask(&other, header, json!({})).await, "other");
    assert_eq!(two.ask(&two.world.key, header, json!({ "model": "n" })).await, "other");
    assert_eq!(two.ask_in("s").await, "one");
}

#[tokio::test]
async fn a_session_moves_when_its_account_fails_or_is_full_and_stays_where_it_has_moved() {
    let two = Two::start(Dialect::OpenAi, Settings::default()).await;
    let busy = two.busy("other");
    assert_eq!(two.ask_in("s").await, "one");
    two.fails.store(true, Ordering::Relaxed);
    assert_eq!(two.ask_in("s").await, "other");
    two.fails.store(false, Ordering::Relaxed);
    assert_eq!(two.ask_in("s").await, "other");
    drop(busy);

    let accounts = &two.world.gateway.0.accounts;
    let limited = |account: &Arc<crate::gateway::Account>| AccountSpec {
        limits: if *account.name == *"other" { LimitSet::at_once(1) } else { LimitSet::default() },
        ..account.spec.clone()
    };
    let specs = accounts.list().iter().map(limited).collect();
    accounts.serve(accounts.prepare(specs).await.unwrap());
    let taken = Place::take(&accounts.list()[1]).unwrap();
    assert_eq!(two.ask_in("s").await, "one");
    drop(taken);
    let _busy = two.busy("one");
    assert_eq!(two.ask_in("s").await, "one");
}

#[tokio::test]
async fn sessions_can_be_let_go_where_they_are_not_wanted() {
    let settings = Settings { sticky_sessions: false, ..Settings::default() };
    let two = Two::start(Dialect::OpenAi, settings).await;
    let busy = two.busy("other");
    assert_eq!(two.ask_in("s").await, "one");
    drop(busy);
    let _busy = two.busy("one");
    assert_eq!(two.ask_in("s").await, "other");
}

#[tokio::test]
async fn accounts_can_be_drawn_by_their_weights_alone() {
    let settings = Settings { strategy: Strategy::Weighted, ..Settings::default() };
    let two = Two::start(Dialect::OpenAi, settings).await;
    let _busy = two.busy("one");
    let mut of_one = 0;
    for _ in 0..40 {
        of_one += u32::from(two.ask(&two.world.key, None, json!({})).await == "one");
    }
    // By load it would be none. That chance has it so one-sided is one in a billion.
    assert!((2..=38).contains(&of_one), "{of_one} of 40");
}
