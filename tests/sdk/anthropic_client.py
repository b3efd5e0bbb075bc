"""What a user of the official Anthropic SDK meets at Tollgate, exceptions included."""

import os

import anthropic

URL = os.environ["TOLLGATE_URL"]

ASK = [{"role": "user", "content": "Say hello."}]

WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def client(key):
    # No retries of its own: an error must come from the first answer.
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=0)


def main():
    key = os.environ["TOLLGATE_KEY"]
    free = client(key)
    models = [model.id for model in free.models.list(limit=1)]
    assert len(models) > 1, f"the model list has not all pages: {models}"
    model = next(name for name in models if "embed" not in name)
    assert free.models.retrieve(model).id == model
    plain_answer(free, model)
    plain_answer(anthropic.Anthropic(base_url=URL, auth_token=key, max_retries=0), model)
    plain_answer(with_key_header(key), model)
    streamed_answer(free, model)
    tools(free, model)
    counted_tokens(free, model)
    wrong_key(model)
    unknown_model(free)
    over_quota(model)


def with_key_header(key):
    """As every version of the SDK can be told to send it."""
    headers = {"X-Api-Key": key, "Authorization": anthropic.omit}
    return anthropic.Anthropic(base_url=URL, api_key=key, default_headers=headers, max_retries=0)


def plain_answer(free, model):
    answer = free.messages.create(model=model, max_tokens=64, system="Be brief.", messages=ASK)
    assert answer.content[0].text, answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer
    assert answer.stop_reason == "end_turn", answer
    assert answer._request_id.startswith("req_"), answer._request_id


def streamed_answer(free, model):
    with free.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text and text == message.content[0].text, message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 1, message
    with free.messages.create(model=model, max_tokens=64, messages=ASK, stream=True) as events:
        kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds


def tools(free, model):
    asked = [{"role": "user", "content": "Bonn"}]
    answer = free.messages.create(model=model, max_tokens=64, tools=[WEATHER], messages=asked)
    assert answer.stop_reason == "tool_use", answer
    call = answer.content[0]
    assert (call.name, call.input) == ("weather", {"city": "Bonn"}), call
    with free.messages.stream(model=model, max_tokens=64, tools=[WEATHER], messages=asked) as stream:
        assert stream.get_final_message().content[0].input == call.input
    asked.append({"role": "assistant", "content": answer.content})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    asked.append({"role": "user", "content": [result]})
    answer = free.messages.create(model=model, max_tokens=64, tools=[WEATHER], messages=asked)
    assert "sunny" in answer.content[0].text, answer


def counted_tokens(free, model):
    assert free.messages.count_tokens(model=model, messages=ASK).input_tokens > 0


def wrong_key(model):
    try:
        client("tg-wrong").messages.create(model=model, max_tokens=8, messages=ASK)
    except anthropic.AuthenticationError as error:
        assert error.status_code == 401, error
        assert error.body["error"]["type"] == "authentication_error", error.body
        assert error.request_id and error.request_id == error.body["request_id"], error.body
    else:
        raise AssertionError("a wrong key was let in")


def unknown_model(free):
    try:
        free.models.retrieve("no-such-model")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error", error.body
    else:
        raise AssertionError("a model that is not there was found")


def over_quota(model):
    limited = client(os.environ["TOLLGATE_LIMITED_KEY"])
    limited.messages.create(model=model, max_tokens=8, messages=ASK)
    try:
        limited.messages.create(model=model, max_tokens=8, messages=ASK)
    except anthropic.RateLimitError as error:
        assert error.body["error"]["type"] == "rate_limit_error", error.body
        seconds = error.response.headers["retry-after"]
        assert seconds.isdigit() and 1 <= int(seconds) <= 61, f"retry-after: {seconds}"
    else:
        raise AssertionError("a request over the limit was let through")


if __name__ == "__main__":
    main()
