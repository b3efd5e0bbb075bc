//! Accounts with a limit on requests at once, and who waits for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use super::support::{Answer, BREAK, Upstream, World, fed_stream, json_response, two, whole};
use crate::{
    gateway::{AccountSpec, Settings, place::Place},
    keys::NewKey,
    limit_set::LimitSet,
    telemetry::Tracer,
};

/// An upstream whose answers are streams that go on until the test lets them end.
struct Held {
    upstream: Upstream,
    begun: mpsc::UnboundedReceiver<Begun>,
}

/// A request that the upstream is answering.
struct Begun {
    account: String,
    /// What the client calls it.
    user: String,
    feed: mpsc::Sender<&'static str>,
}

impl Held {
    async fn start() -> Held {
        let (send, begun) = mpsc::unbounded_channel();
        let upstream = Upstream::start(move |received| {
            let (feed, response) = fed_stream();
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            let user = body["user"].as_str().unwrap_or_default().to_owned();
            send.send(Begun { account: received.key().to_owned(), user, feed }).unwrap();
            Some(response)
        })
        .await;
        Held { upstream, begun }
    }

    /// One account with one place.
    fn single(&self) -> Vec<AccountSpec> {
        vec![AccountSpec { limits: LimitSet::at_once(1), ..self.upstream.account("single") }]
    }

    /// The next request that arrives.
    async fn next(&mut self) -> Begun {
        self.begun.recv().await.unwrap()
    }
}

async fn stream(world: &World, key: &str, user: &str) -> Response<Incoming> {
    let body = json!({ "model": "m", "stream": true, "messages": [], "user": user }).to_string();
    world.send_as(key, Method::POST, "/v1/chat/completions", body).await
}

/// Begins a request that has to wait, and returns when it does.
async fn waiting(world: &Arc<World>, key: &str, user: &'static str) -> JoinHandle<Answer> {
    let before = world.gateway.0.accounts.queue().len();
    let (sending, key) = (world.clone(), key.to_owned());
    let task = tokio::spawn(async move { whole(stream(&sending, &key, user).await).await });
    queued(world, before + 1).await;
    task
}

/// Waits until so many requests wait.
async fn queued(world: &World, count: usize) {
    let reached = async {
        while world.gateway.0.accounts.queue().len() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("they wait");
}

/// Waits until no account has a request.
async fn free(world: &World) {
    let freed = async {
        while world.gateway.0.accounts.list().iter().any(|account| account.places.taken() > 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("a place is not given back");
}

async fn world(accounts: Vec<AccountSpec>, settings: Settings) -> Arc<World> {
    Arc::new(World::with(accounts, settings).await)
}

#[tokio::test]
async fn what_a_full_account_has_no_room_for_goes_to_the_next_priority_and_comes_back() {
    let mut held = Held::start().await;
    let mut accounts = two(&held.upstream);
    accounts[0].limits.concurrency = Some(2);
    let world = World::start(accounts).await;
    let (mut open, mut order) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let response = stream(&world, &world.key, "").await;
        let begun = held.next().await;
        order.push(begun.account.clone());
        open.push((response, begun));
    }
    assert_eq!(order, ["first", "first", "second", "second"]);
    // Its end gives the place back.
    let (first, begun) = open.remove(0);
    drop(begun);
    whole(first).await;
    let _again = stream(&world, &world.key, "").await;
    assert_eq!(held.next().await.account, "first");
}

#[tokio::test]
async fn who_waits_gets_the_next_place_in_the_order_of_coming() {
    let mut held = Held::start().await;
    let world = world(held.single(), Settings::default()).await;
    let running = stream(&world, &world.key, "running").await;
    let mut feed = held.next().await.feed;
    let mut tasks = Vec::new();
    for user in ["one", "two", "three"] {
        tasks.push(waiting(&world, &world.key, user).await);
    }
    let ended = tokio::spawn(whole(running));
    for user in ["one", "two", "three"] {
        // What ran before ends.
        drop(feed);
        let begun = held.next().await;
        assert_eq!(begun.user, user);
        feed = begun.feed;
    }
    drop(feed);
    assert_eq!(ended.await.unwrap().status, 200);
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    free(&world).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_not_waited_for() {
    let mut held = Held::start().await;
    let world = world(held.single(), Settings::default()).await;
    let running = stream(&world, &world.key, "running").await;
    let feed = held.next().await.feed;
    let leaves = waiting(&world, &world.key, "leaves").await;
    let stays = waiting(&world, &world.key, "stays").await;
    leaves.abort();
    queued(&world, 1).await;
    let event = world.event().await;
    assert_eq!((event.status_code, event.account_name.as_str(), event.input_tokens), (499, "", 0));
    drop(feed);
    whole(running).await;
    assert_eq!(held.next().await.user, "stays");
    assert_eq!(stays.await.unwrap().status, 200);
    free(&world).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_another_account_is_not_the_failed_ones_affair() {
    let mut held = Held::start().await;
    let broken = Upstream::start(|_| Some(json_response(500, "{}"))).await;
    let second = AccountSpec { priority: 1, limits: LimitSet::at_once(1), ..held.upstream.account("second") };
    let world = world(vec![broken.account("first"), second], Settings::default()).await;
    let running = stream(&world, &world.key, "running").await;
    let feed = held.next().await.feed;
    let leaves = waiting(&world, &world.key, "leaves").await;
    leaves.abort();
    queued(&world, 0).await;
    let event = world.event().await;
    assert_eq!((event.status_code, event.error_type.as_str()), (499, "client_closed"));
    assert_eq!(
        (event.account_name.as_str(), event.api_key_hash.as_str(), event.model.as_str()),
        ("", "", "m")
    );
    let [attempt] = &event.attempts[..] else { panic!("{:?}", event.attempts) };
    assert_eq!((attempt.account_name.as_str(), attempt.error_type.as_str()), ("first", "upstream"));
    drop(feed);
    whole(running).await;
}

#[tokio::test]
async fn a_trace_has_the_wait_of_who_waited_and_of_who_left_and_no_other() {
    let upstream = Upstream::start(|received| {
        Some(json_response(if received.key() == "first" { 500 } else { 200 }, "{}"))
    })
    .await;
    let mut accounts = two(&upstream);
    accounts.iter_mut().for_each(|account| account.limits = LimitSet::at_once(1));
    let tracer = Tracer::keeping();
    let world = Arc::new(World::traced(accounts, Settings::default(), tracer.clone()).await);
    let fill = || {
        let accounts = world.gateway.0.accounts.list();
        accounts.iter().map(|account| Place::take(account).unwrap()).collect::<Vec<_>>()
    };
    let waits = || tracer.kept().iter().filter(|span| span.name == "queue").count();

    // It waits for the first, which fails, and goes to the second, which is free by then.
    let places = fill();
    let waited = waiting(&world, &world.key, "waits").await;
    drop(places);
    assert_eq!(waited.await.unwrap().status, 200);
    let event = world.event().await;
    assert_eq!((event.account_name.as_str(), event.attempts.len()), ("second", 1));
    assert_eq!(waits(), 1);

    let _places = fill();
    waiting(&world, &world.key, "leaves").await.abort();
    queued(&world, 0).await;
    world.events(2).await;
    assert_eq!(waits(), 1);
}

#[tokio::test]
async fn a_place_is_free_again_however_its_request_ends() {
    let mut held = Held::start().await;
    let settings = Settings { total_timeout: Duration::from_secs(3_600), ..Settings::default() };
    let world = world(held.single(), settings).await;
    // The client leaves in mid-stream.
    drop(stream(&world, &world.key, "").await);
    let feed = held.next().await.feed;
    free(&world).await;
    drop(feed);
    // The client of one that has waited leaves.
    let running = stream(&world, &world.key, "").await;
    let feed = held.next().await.feed;
    let task = waiting(&world, &world.key, "").await;
    drop(feed);
    whole(running).await;
    let feed = held.next().await.feed;
    task.abort();
    free(&world).await;
    drop(feed);
    // The upstream breaks off.
    let broken = stream(&world, &world.key, "").await;
    held.next().await.feed.send(BREAK).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());
    free(&world).await;
    // The answer takes too long.
    let cut = stream(&world, &world.key, "").await;
    let _feed = held.next().await.feed;
    world.gateway.0.flights.sweep(Instant::now() + Duration::from_secs(3_601));
    free(&world).await;
    assert!(cut.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_account_that_fails_gives_its_place_to_who_waits_for_it() {
    let upstream = Upstream::start(|_| Some(json_response(500, "{}"))).await;
    let accounts = vec![AccountSpec { limits: LimitSet::at_once(1), ..upstream.account("single") }];
    let world = World::start(accounts).await;
    let body = r#"{"model":"m","messages":[]}"#;
    let answers = futures_util::future::join_all((0..20).map(|_| world.chat(body))).await;
    assert!(answers.iter().all(|answer| answer.status == 502), "{answers:?}");
    assert_eq!(upstream.seen().len(), 20);
    free(&world).await;
}

#[tokio::test]
async fn who_waited_in_vain_or_found_the_queue_full_is_told_when_to_come_again() {
    let mut held = Held::start().await;
    let settings =
        Settings { queue_requests: 2, queue_timeout: Duration::from_secs(3_600), ..Settings::default() };
    let world = world(held.single(), settings.clone()).await;
    let _running = stream(&world, &world.key, "").await;
    let _feed = held.next().await.feed;
    let mut keys = Vec::new();
    for name in ["second", "third"] {
        keys.push(world.keys.create(NewKey { name: name.to_owned(), ..NewKey::default() }).await.unwrap());
    }
    let _first = waiting(&world, &world.key, "").await;
    let told = |answer: Answer| {
        let error = answer.json()["error"].take();
        assert_eq!(answer.headers["retry-after"], "1", "{error}");
        (answer.status.as_u16(), error["code"].clone())
    };
    // Half of the queue is what one key may have.
    let own = whole(stream(&world, &world.key, "").await).await;
    assert_eq!(told(own), (429, json!("rate_limit_exceeded")));
    let _second = waiting(&world, &keys[0], "").await;
    let full = whole(stream(&world, &keys[1], "").await).await;
    assert_eq!(told(full), (503, json!("service_unavailable")));
    queued(&world, 2).await;
    for queue_requests in [0, 10] {
        let queue_timeout = Duration::from_millis(1);
        world.gateway.reconfigure(Settings { queue_requests, queue_timeout, ..settings.clone() });
        let late = whole(stream(&world, &keys[1], "").await).await;
        assert_eq!(told(late), (503, json!("service_unavailable")));
    }
    let events = world.events(4).await;
    let statuses: Vec<_> = events.iter().map(|event| event.status_code).collect();
    assert_eq!(statuses, [429, 503, 503, 503]);
    assert!(events.iter().all(|event| event.error_message.as_ref().unwrap().contains("is busy")));
}

#[tokio::test]
async fn who_waits_takes_a_place_that_a_change_of_the_accounts_makes() {
    let mut held = Held::start().await;
    let world = world(held.single(), Settings::default()).await;
    let accounts = &world.gateway.0.accounts;
    let _running = stream(&world, &world.key, "").await;
    let _feed = held.next().await.feed;
    let task = waiting(&world, &world.key, "first").await;
    let more = AccountSpec { limits: LimitSet::at_once(2), ..held.single().remove(0) };
    accounts.serve(accounts.prepare(vec![more.clone()]).await.unwrap());
    let first = held.next().await;
    assert_eq!((first.user.as_str(), first.account.as_str()), ("first", "single"));
    let _second = waiting(&world, &world.key, "second").await;
    accounts.serve(accounts.prepare(vec![more, held.upstream.account("other")]).await.unwrap());
    let second = held.next().await;
    assert_eq!((second.user.as_str(), second.account.as_str()), ("second", "other"));
    // What runs counts on when a limit is lowered.
    accounts.serve(accounts.prepare(held.single()).await.unwrap());
    let _third = waiting(&world, &world.key, "third").await;
    drop(first);
    assert_eq!(task.await.unwrap().status, 200);
    assert_eq!(accounts.queue().len(), 1, "there are still as many as may be");
}
