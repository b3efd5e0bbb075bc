use serde_json::json;

use super::{request::*, usage::*, *};
use crate::gateway::{
    limits::{ESTIMATE_MAX, LINE_BYTES},
    usage::{Reported, UsageReader},
};

const WHOLE: &str = ":generateContent";
const STREAM: &str = ":streamGenerateContent";
const COUNT: &str = ":countTokens";
const EMBED: &str = ":embedContent";
const BATCH: &str = ":batchEmbedContents";

fn head(uri: &str) -> Parts {
    http::Request::get(uri).body(()).unwrap().into_parts().0
}

fn head_with(uri: &str, header: (&str, &str)) -> Parts {
    http::Request::get(uri).header(header.0, header.1).body(()).unwrap().into_parts().0
}

fn outline(method: &str, body: &[u8]) -> Result<Outline, Problem> {
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.path.ends_with(method)).unwrap();
    (endpoint.outline)(body, Some("m".to_owned()))
}

fn seen(events: &[&str]) -> Seen {
    let mut seen = Seen::default();
    events.iter().for_each(|event| read_event(event.as_bytes(), &mut seen));
    seen
}

fn used(input: u64, output: u64) -> Reported {
    Reported { input: Some(input), output: Some(output), ..Reported::default() }
}

#[test]
fn a_path_names_the_version_the_model_and_the_method() {
    for (path, endpoint, model) in [
        (
            "/v1beta/models/gemini-2.5-flash:generateContent",
            "/v1beta/models/{model}:generateContent",
            "gemini-2.5-flash",
        ),
        ("/v1/models/m:streamGenerateContent", "/v1/models/{model}:streamGenerateContent", "m"),
        ("/v1/models/meta/llama%203:countTokens", "/v1/models/{model}:countTokens", "meta/llama%203"),
        ("/v1beta/models/llama3:8b:embedContent", "/v1beta/models/{model}:embedContent", "llama3:8b"),
        ("/v1beta/models/:batchEmbedContents", "/v1beta/models/{model}:batchEmbedContents", ""),
    ] {
        let Some(Target::Forward(found, named)) = Gemini.target(path) else { panic!("{path}") };
        assert_eq!((found.path, named), (endpoint, Some(model)));
    }
    for method in ["/v1beta/models/m:foo", "/v1beta/models/m:", "/v1/models/m:generatecontent"] {
        assert!(matches!(Gemini.target(method), Some(Target::Nothing)), "{method}");
    }
    assert!(matches!(Gemini.target("/v1beta/models"), Some(Target::Models)));
    assert!(matches!(Gemini.target("/v1/models/a/b"), Some(Target::Model("a/b"))));
    for nothing in [
        "/v1beta/models/",
        "/v1beta/modelsx",
        "/v1beta/tunedModels/m:generateContent",
        "/v2/models/m:generateContent",
        "/v1beta/models:generateContent",
        "/",
    ] {
        assert!(Gemini.target(nothing).is_none(), "{nothing}");
    }
}

#[test]
fn a_request_is_meant_by_its_path_or_by_where_its_key_is() {
    for (uri, meant) in [
        ("/v1beta/x", true),
        ("/v1/models?key=k", true),
        ("/v1/models?a=b&key=k", true),
        ("/v1/models/m:generateContent", true),
        ("/v1/models/m", false),
        ("/v1/models?monkey=k", false),
    ] {
        assert_eq!(Gemini.is_meant(&head(uri)), meant, "{uri}");
    }
    assert!(Gemini.is_meant(&head_with("/v1/models", ("x-goog-api-key", "k"))));
    assert!(!Gemini.is_meant(&head_with("/v1/models", ("authorization", "Bearer k"))));
}

#[test]
fn the_key_of_the_header_comes_before_that_of_the_query() {
    for (uri, header, key) in [
        ("/", "h", Some("h")),
        ("/?key=q", "h", Some("h")),
        ("/?key=q", "", Some("q")),
        ("/?alt=sse&$key=q&x", "", Some("q")),
        ("/?%6bey=q", "", Some("q")),
        ("/?key=", "", None),
        ("/?keys=q", "", None),
        ("/", "", None),
    ] {
        assert_eq!(Gemini.credentials(&head_with(uri, ("x-goog-api-key", header))), key, "{uri} {header}");
    }
}

#[test]
fn of_a_query_only_the_form_of_the_answer_is_sent_on() {
    for (query, sent) in [
        ("alt=sse", Some("alt=sse")),
        ("key=k&alt=sse&access_token=t&prettyPrint=false", Some("alt=sse")),
        ("%24alt=sse", Some("alt=sse")),
        ("alt=json", None),
        ("alt=proto&callback=f&fields=candidates", None),
        ("%6bey=k&oauth_token=t&$httpHeaders=authorization:x", None),
        ("", None),
    ] {
        assert_eq!(Gemini.upstream_query(query).as_deref(), sent, "{query}");
    }
}

#[test]
fn the_estimate_is_a_third_of_the_text_and_the_answers_bound() {
    for (method, body, tokens) in [
        (WHOLE, r#"{"contents":[{"role":"user","parts":[{"text":"123"}]}]}"#, 1 + 1_024),
        (STREAM, r#"{"contents":[],"generationConfig":{"maxOutputTokens":5,"candidateCount":3}}"#, 15),
        (STREAM, r#"{"generation_config":{"max_output_tokens":"5","candidate_count":2.0}}"#, 10),
        (WHOLE, r#"{"contents":null,"generationConfig":{"maxOutputTokens":null}}"#, 1_024),
        (WHOLE, r#"{"contents":{"parts":{"text":"123456"}},"generationConfig":{"maxOutputTokens":0}}"#, 2),
        (
            WHOLE,
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AAAAAAAAAAAA"}},
               {"fileData":{"fileUri":"files/123456"}},{"text":"123"}]}],
               "systemInstruction":{"parts":[{"text":"123"}]},"generationConfig":{"maxOutputTokens":0}}"#,
            2,
        ),
        (
            WHOLE,
            r#"{"contents":[{"parts":[{"functionCall":{"name":"abc","args":{"a":1}}}]},
               {"parts":[{"functionResponse":{"name":"abc","response":{"a":"b"}}}]}],
               "generationConfig":{"maxOutputTokens":0}}"#,
            8,
        ),
        (WHOLE, r#"{"tools":[{"a":1}],"generationConfig":{"maxOutputTokens":0}}"#, 3),
        (COUNT, r#"{"contents":[{"parts":[{"text":"123456"}]}]}"#, 0),
        (EMBED, r#"{"content":{"parts":[{"text":"123456"}]}}"#, 2),
        (
            BATCH,
            r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"123"}]}},
               {"content":{"parts":[{"text":"456"}]}}]}"#,
            2,
        ),
        (
            WHOLE,
            r#"{"generationConfig":{"maxOutputTokens":18446744073709551615,"candidateCount":9}}"#,
            ESTIMATE_MAX,
        ),
    ] {
        let read = outline(method, body.as_bytes()).unwrap();
        assert_eq!(read.estimated_tokens, tokens, "{body}");
        assert_eq!((read.model.as_str(), read.streaming), ("m", method == STREAM));
    }
}

#[test]
fn a_bad_body_is_invalid_and_the_message_says_where() {
    for (body, message) in [
        (&b""[..], "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{", "line 1 column 1"),
        (b"{\"generationConfig\":{\"maxOutputTokens\":-1}}", "a whole number"),
        (b"{\"generationConfig\":{\"maxOutputTokens\":0.5}}", "a whole number"),
        (b"{\"generationConfig\":{\"maxOutputTokens\":\"x\"}}", "a whole number"),
        (b"{\"generationConfig\":{},\"generation_config\":{}}", "duplicate field"),
        (b"{\"contents\":[{\"parts\":[{\"text\":\"\xff\"}]}]}", "not UTF-8 at byte 32"),
    ] {
        for method in [WHOLE, STREAM, COUNT, EMBED, BATCH] {
            let problem = outline(method, body).unwrap_err();
            assert_eq!(problem.class, Class::Invalid);
            assert!(problem.message.contains(message), "{} lacks {message}", problem.message);
        }
    }
    let other = outline(BATCH, br#"{"requests":[{"model":"models/m"},{"model":"models/other"}]}"#);
    assert!(other.unwrap_err().message.contains("another model"));
    for nested in ["{\"contents\":", "{\"contents\":[{\"parts\":[{\"functionCall\":{\"args\":"] {
        let deep = format!("{nested}{}", "[".repeat(100_000));
        assert_eq!(outline(WHOLE, deep.as_bytes()).unwrap_err().class, Class::Invalid);
    }
}

#[test]
fn a_name_that_wanders_is_no_model() {
    let long = "m".repeat(300);
    for (model, class) in [
        ("", Class::Invalid),
        ("../tunedModels/m", Class::Model),
        ("a/../b", Class::Model),
        ("a//b", Class::Model),
        ("/m", Class::Model),
        ("./m", Class::Model),
        ("a\nb", Class::Model),
        (&long, Class::Model),
    ] {
        for endpoint in &ENDPOINTS {
            let problem = (endpoint.outline)(b"{}", Some(model.to_owned())).unwrap_err();
            assert_eq!(problem.class, class, "{model}");
        }
    }
    let read = outline_whole(b"{}", Some("meta/llama 3:8b..".to_owned())).unwrap();
    assert_eq!(read.model, "meta/llama 3:8b..");
}

#[test]
fn text_is_counted_in_every_part_that_a_model_writes() {
    for (event, bytes) in [
        (r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"héllo"}]},"index":0}]}"#, 6),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]}}]}"#, 2),
        (r#"{"candidates":[{"content":{"parts":[{"text":"think","thought":true}]}}]}"#, 5),
        (r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":1}}}]}}]}"#, 8),
        (r#"{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}}]}}]}"#, 0),
        (r#"{"candidates":[{"finishReason":"SAFETY"}]}"#, 0),
        (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, 0),
        ("{", 0),
    ] {
        assert_eq!(seen(&[event]).text_bytes, bytes, "{event}");
    }
}

#[test]
fn every_kind_of_token_counts_once() {
    for (usage, reported) in [
        (r#"{"promptTokenCount":7,"candidatesTokenCount":5,"totalTokenCount":12}"#, used(7, 5)),
        (
            r#"{"promptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"toolUsePromptTokenCount":3,
               "cachedContentTokenCount":6,"totalTokenCount":26}"#,
            Reported { cache_read: 6, reasoning: 11, ..used(10, 16) },
        ),
        // A count of zero is left out.
        (
            r#"{"promptTokenCount":7,"thoughtsTokenCount":11,"totalTokenCount":18}"#,
            Reported { reasoning: 11, ..used(7, 11) },
        ),
        (r#"{"candidatesTokenCount":5,"totalTokenCount":5}"#, used(0, 5)),
        (r#"{"promptTokenCount":7,"totalTokenCount":12}"#, used(7, 5)),
        (r#"{"promptTokenCount":7,"totalTokenCount":7}"#, used(7, 0)),
        (r#"{"promptTokenCount":7}"#, Reported { input: Some(7), ..Reported::default() }),
        (
            r#"{"promptTokenCount":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]}"#,
            Reported { input: Some(7), ..Reported::default() },
        ),
        ("{}", Reported::default()),
        ("null", Reported::default()),
    ] {
        let mut plain = Seen::default();
        read_entry("usageMetadata", usage.as_bytes(), &mut plain);
        assert_eq!(plain.reported, reported, "{usage}");
        assert_eq!(seen(&[&format!("{{\"usageMetadata\":{usage}}}")]).reported, reported, "{usage}");
    }
}

#[test]
fn the_last_count_of_a_stream_holds() {
    let events = [
        r#"{"candidates":[{"content":{"parts":[{"text":"abcdef"}]}}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"ghi"}]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}],
            "usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":3,"thoughtsTokenCount":9}}"#,
    ];
    // The first counts no answer although there is text: then the text counts.
    let prompt_only = Reported { input: Some(4), ..Reported::default() };
    let whole = Reported { reasoning: 9, ..used(4, 12) };
    for (count, reported, done) in [(1, prompt_only, false), (2, used(4, 2), false), (3, whole, true)] {
        let seen = seen(&events[..count]);
        assert_eq!((seen.reported, seen.done), (reported, done), "{count} events");
    }
    // What goes on after an end was none.
    assert!(!seen(&[events[2], events[1]]).done);
}

#[test]
fn an_error_in_mid_stream_is_noticed() {
    let error = r#"{"code":503,"message":"overloaded","status":"UNAVAILABLE"}"#;
    assert_eq!(seen(&[&format!("{{\"error\":{error}}}")]).failure.as_deref(), Some("overloaded"));
    let mut element = Seen::default();
    read_entry("error", error.as_bytes(), &mut element);
    assert_eq!(element.failure.as_deref(), Some("overloaded"));
}

/// Input and output of an array that comes in pieces, for a prompt of an estimated 5 tokens; and the error in it.
fn read_array(pieces: &[&str]) -> (u64, u64, Option<String>) {
    let mut reader = UsageReader::json(Dialect::Gemini, Uses::Text);
    pieces.iter().for_each(|piece| reader.feed(piece.as_bytes()));
    let tokens = reader.tokens(5);
    (tokens.input, tokens.output, reader.failure())
}

#[test]
fn a_stream_without_events_is_an_array_whose_elements_are_read_as_they_come() {
    let text = r#"{"candidates":[{"content":{"parts":[{"text":"abcdef"}]}}]}"#;
    let usage = r#"{"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3}}"#;
    let error = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
    let failed = Some("overloaded".to_owned());
    let long = format!(r#"{{"x":"{}",{}"#, "x".repeat(10 * LINE_BYTES), &usage[1..]);
    assert_eq!(read_array(&["[", text, "\r\n,", text]), (5, 4, None));
    assert_eq!(read_array(&["[", text, ",", &text[..text.len() - 1]]), (5, 2, None));
    assert_eq!(read_array(&["\n", " [", text, ",", usage, "]"]), (7, 3, None));
    assert_eq!(read_array(&["[", usage, ",", text, ",", error, "]"]), (7, 3, failed.clone()));
    assert_eq!(read_array(&["[", error, "]"]), (5, 0, failed));
    assert_eq!(
        read_array(&["[", text, ",", &long[..LINE_BYTES * 2], &long[LINE_BYTES * 2..], "]"]),
        (7, 3, None)
    );
    // A plain answer is no array.
    assert_eq!(read_array(&[usage]), (7, 3, None));
}

#[test]
fn an_upstreams_errors_tell_of_the_key_and_of_the_wait() {
    let key = r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[
        {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"},
        {"@type":"type.googleapis.com/google.rpc.LocalizedMessage","locale":"en-US","message":"x"}]}}"#;
    for body in [key.to_owned(), format!("[{key}]")] {
        let refused_as = Gemini.refused_as(StatusCode::BAD_REQUEST, body.as_bytes());
        assert_eq!(refused_as, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(Gemini.error_message(body.as_bytes()).as_deref(), Some("API key not valid."));
        assert_eq!(told(&body), Told::default());
    }
    for other in
        ["{}", "<html>", r#"{"error":{"message":"no","details":[{"reason":"OTHER"}]}}"#, r#"{"error":{}}"#]
    {
        assert_eq!(Gemini.refused_as(StatusCode::BAD_REQUEST, other.as_bytes()), None, "{other}");
    }
    for (delay, ms) in
        [("39s", Some(39_000)), ("45.837906927s", Some(45_838)), ("x", None), ("1m", None), ("-1s", Some(0))]
    {
        let body = format!(
            r#"{{"error":{{"code":429,"details":[{{"violations":[{{"quotaValue":"15"}}]}},{{"retryDelay":"{delay}"}}]}}}}"#
        );
        assert_eq!(told(&body), Told { retry_after_ms: ms, reached: None }, "{delay}");
    }
}

/// What a refusal says, an hour and a half after 1970 began.
fn told(body: &str) -> Told {
    Gemini.told(&Refused::new(&HeaderMap::new(), body.as_bytes(), 5_400_000))
}

#[test]
fn a_refusal_names_the_quota_that_stands_in_the_way_for_longest() {
    let refusal = |quotas: &[&str]| {
        let violation =
            |id: &&str| json!({ "quotaId": id, "quotaDimensions": { "model": "m", "location": "global" } });
        let violations: Vec<_> = quotas.iter().map(violation).collect();
        let details = [
            json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations }),
            json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s" }),
        ];
        json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": details } }).to_string()
    };
    let minute = "GenerateContentInputTokensPerModelPerMinute-FreeTier";
    // Until eight in the morning, when it was midnight on the Pacific coast.
    let (soon, tomorrow) = (34_000, 6 * 3_600_000 + 1_800_000);
    for (quotas, wait_ms, measure, of_model) in [
        (&[minute][..], soon, Measure::Tpm, true),
        (&["GenerateRequestsPerMinutePerProjectPerModel-FreeTier"], soon, Measure::Rpm, true),
        (&[minute, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"], tomorrow, Measure::Rpd, true),
        (&["GenerateContentPaidTierInputTokensPerModelPerDay"], tomorrow, Measure::TokensPerDay, true),
        (&["GenerateRequestsPerDayPerProject"], tomorrow, Measure::Rpd, false),
    ] {
        let reached = Some(Reached { measure, of_model });
        assert_eq!(told(&refusal(quotas)), Told { retry_after_ms: Some(wait_ms), reached }, "{quotas:?}");
    }
    let unknown = refusal(&["SomethingElse"]);
    assert_eq!(told(&unknown), Told { retry_after_ms: Some(soon), reached: None });
}

#[tokio::test]
async fn errors_have_googles_shape() {
    for (class, code, status) in [
        (Class::Invalid, 400, "INVALID_ARGUMENT"),
        (Class::Forbidden, 403, "PERMISSION_DENIED"),
        (Class::Model, 404, "NOT_FOUND"),
        (Class::Path, 404, "NOT_FOUND"),
        (Class::Method, 405, "UNIMPLEMENTED"),
        (Class::TooLarge, 413, "INVALID_ARGUMENT"),
        (Class::RequestLimit, 429, "RESOURCE_EXHAUSTED"),
        (Class::TokenLimit, 429, "RESOURCE_EXHAUSTED"),
        (Class::Budget, 429, "RESOURCE_EXHAUSTED"),
        (Class::Internal, 500, "INTERNAL"),
        (Class::Upstream, 502, "UNAVAILABLE"),
        (Class::Unavailable, 503, "UNAVAILABLE"),
        (Class::UpstreamTimeout, 504, "DEADLINE_EXCEEDED"),
    ] {
        let response = Gemini.refuse(&Problem::of(class, "model", "no").after(Some(1_020)), "req_1");
        assert_eq!(response.status(), code);
        assert_eq!(response.headers()["retry-after"], "2");
        let retry = serde_json::json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.020s" });
        let error =
            serde_json::json!({ "code": code, "message": "no", "status": status, "details": [retry] });
        assert_eq!(body(response).await, serde_json::json!({ "error": error }));
    }
    let error = body(Gemini.refuse(&Problem::new(Class::Key, "no"), "req_1")).await["error"].take();
    assert_eq!((&error["code"], &error["status"]), (&401.into(), &"UNAUTHENTICATED".into()));
    assert_eq!(error["details"][0]["reason"], "API_KEY_INVALID");
    let error = body(Gemini.refuse(&Problem::new(Class::Invalid, "no"), "req_1")).await["error"].take();
    assert_eq!(error.get("details"), None);
}

#[tokio::test]
async fn models_are_listed_in_pages() {
    let ids = ["a", "b", "c"].map(str::to_owned);
    let pages = async |query: &str| {
        let list = body(Gemini.models(&ids, query)).await;
        let names = list["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap()[7..].to_owned());
        (names.collect::<String>(), list["nextPageToken"].as_str().map(str::to_owned))
    };
    for (query, names, next) in [
        ("", "abc", None),
        ("pageSize=2", "ab", Some("b")),
        ("pageSize=2&pageToken=b", "c", None),
        ("pageSize=3", "abc", None),
        ("pageToken=a&pageSize=1", "b", Some("b")),
        ("pageSize=0", "abc", None),
        ("pageSize=x&pageToken=%62", "c", None),
        ("pageToken=z", "", None),
    ] {
        assert_eq!(pages(query).await, (names.to_owned(), next.map(str::to_owned)), "{query}");
    }
    let listed =
        Gemini.listed(br#"{"models":[{"name":"models/a","version":"1"},{"name":"b"}],"nextPageToken":""}"#);
    assert_eq!(listed.unwrap(), ["a", "b"]);
    assert_eq!(Gemini.listed(b"{\"data\":[]}"), None);
}

async fn body(response: Response) -> serde_json::Value {
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}
