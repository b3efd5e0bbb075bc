//! Models that clients know by other names than the accounts' upstreams.

use http::Method;
use serde_json::{Value, json};

use super::support::{Upstream, World, json_response, two, whole};
use crate::{
    gateway::{AccountSpec, Dialect},
    keys::NewKey,
};

fn aliased(account: AccountSpec, aliases: &[(&str, &str)]) -> AccountSpec {
    let aliases = aliases.iter().map(|(name, to)| ((*name).to_owned(), (*to).to_owned())).collect();
    AccountSpec { aliases, ..account }
}

#[tokio::test]
async fn the_upstream_is_asked_for_its_own_model_and_the_rest_of_the_body_is_the_clients() {
    let answer = r#"{"model":"own-1","usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let upstream = Upstream::start(move |_| Some(json_response(200, answer))).await;
    let world = World::start(vec![aliased(upstream.account("main"), &[("fast", "own-1")])]).await;
    let got = world.chat("{ \"x\":1.0, \"model\" :\"fast\",\n \"messages\":[{\"model\":\"fast\"}] }").await;
    assert_eq!(
        (got.status.as_u16(), got.body),
        (200, answer.into()),
        "the answer is as the upstream gave it"
    );
    let plain = world.chat(r#"{"model":"m","messages":[]}"#).await;
    assert_eq!(plain.status, 200);
    let seen = upstream.seen();
    let sent = "{ \"x\":1.0, \"model\" :\"own-1\",\n \"messages\":[{\"model\":\"fast\"}] }";
    assert_eq!(
        (&seen[0].body[..], &seen[1].body[..]),
        (sent.as_bytes(), &br#"{"model":"m","messages":[]}"#[..])
    );
    assert_eq!(seen[0].headers["content-length"], *sent.len().to_string());
    let models: Vec<_> =
        world.events(2).await.into_iter().map(|event| (event.original_model, event.model)).collect();
    assert_eq!(models, [("fast", "own-1"), ("m", "m")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn each_account_has_its_own_model_for_a_name() {
    let upstream = Upstream::start(|received| {
        Some(json_response(if received.key() == "first" { 500 } else { 200 }, "{}"))
    })
    .await;
    let mut accounts = two(&upstream);
    accounts[0] = aliased(accounts[0].clone(), &[("fast", "a")]);
    accounts[1] = aliased(accounts[1].clone(), &[("fast", "b"), ("m", "c")]);
    let world = World::start(accounts).await;
    for model in ["fast", "m"] {
        let body = json!({ "model": model, "messages": [] }).to_string();
        assert_eq!(world.send(Method::POST, "/v1/chat/completions", body).await.status(), 200);
    }
    let asked: Vec<Value> = upstream
        .seen()
        .iter()
        .map(|received| serde_json::from_slice::<Value>(&received.body).unwrap()["model"].take())
        .collect();
    assert_eq!(asked, ["a", "b", "m", "c"]);
    let models: Vec<_> = world.events(2).await.into_iter().map(|event| event.model).collect();
    assert_eq!(models, ["b", "c"], "that of the account which answered");
}

#[tokio::test]
async fn clients_may_use_and_see_the_names_that_their_key_allows() {
    let listed = r#"{"data":[{"id":"own-1"},{"id":"own-2"}]}"#;
    let upstream = Upstream::start(move |_| Some(json_response(200, listed))).await;
    let open = AccountSpec { models: Vec::new(), ..aliased(upstream.account("open"), &[("fast", "own-1")]) };
    let closed = aliased(upstream.account("closed"), &[("hidden", "own-3")]);
    let world = World::start(vec![open, closed.clone()]).await;
    let ids = async |world: &World, key: &str| {
        let list = whole(world.send_as(key, Method::GET, "/v1/models", "").await).await.json();
        let ids =
            list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&world, &world.key).await, ["fast", "hidden", "m", "own-1", "own-2"]);
    let narrow = world.keys.create(NewKey::for_models("narrow", &["fast"])).await.unwrap();
    assert_eq!(ids(&world, &narrow).await, ["fast"]);
    let ask = async |world: &World, key: &str, model: &str| {
        let body = json!({ "model": model, "messages": [] }).to_string();
        world.send_as(key, Method::POST, "/v1/chat/completions", body).await.status().as_u16()
    };
    assert_eq!((ask(&world, &narrow, "fast").await, ask(&world, &narrow, "own-1").await), (200, 404));
    // An account that is restricted to some models serves what stands behind its names by these alone.
    let world = World::start(vec![closed]).await;
    assert_eq!((ask(&world, &world.key, "hidden").await, ask(&world, &world.key, "own-3").await), (200, 404));
}

#[tokio::test]
async fn in_gemini_the_name_is_changed_in_the_path_and_wherever_the_body_repeats_it() {
    let upstream = Upstream::start(|_| Some(json_response(200, "{}"))).await;
    let account = aliased(upstream.account("main"), &[("fa/st", "tuned/my model:1?")]);
    let world = World::start(vec![AccountSpec { dialect: Dialect::Gemini, ..account }]).await;
    for (method, body, expected) in [
        ("generateContent", r#"{"contents":[]}"#, r#"{"contents":[]}"#),
        (
            "batchEmbedContents",
            r#"{"requests":[{"model":"models/fa/st"}, {"model":"fa/st","content":{}}],"model":"other"}"#,
            r#"{"requests":[{"model":"models/tuned/my model:1?"}, {"model":"tuned/my model:1?","content":{}}],"model":"other"}"#,
        ),
        (
            "countTokens",
            r#"{"generateContentRequest":{"model":"models/fa/st"}}"#,
            r#"{"generateContentRequest":{"model":"models/tuned/my model:1?"}}"#,
        ),
    ] {
        let target = format!("{}/v1beta/models/fa%2Fst:{method}?key={}&alt=sse", world.url, world.key);
        let request = http::Request::post(target).body(http_body_util::Full::from(body)).unwrap();
        assert_eq!(world.request(request).await.status(), 200, "{method}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.path, format!("/v1beta/models/tuned/my%20model:1%3F:{method}?alt=sse"));
        assert_eq!(seen.body, expected);
    }
    let event = world.events(3).await.remove(0);
    assert_eq!((event.original_model.as_str(), event.model.as_str()), ("fa/st", "tuned/my model:1?"));
}
