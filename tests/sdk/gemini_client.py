"""What a user of the official Google Gen AI SDK meets at Tollgate, exceptions included."""

import os

from google import genai
from google.genai import errors, types

URL = os.environ["TOLLGATE_URL"]

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            description="Tells the weather in a city.",
            parameters_json_schema={
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        )
    ]
)


def client(key, version=None):
    # Without retry options the SDK does not retry: an error comes from the first answer.
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=URL, api_version=version))


def main():
    # The SDK's own version, and the one that most other clients use.
    for version in (None, "v1beta"):
        free = client(os.environ["TOLLGATE_KEY"], version)
        models = listed_models(free)
        model = next(m.name for m in models if "embed" not in m.name)
        one_model(free, model)
        plain_answer(free, model)
        streamed_answer(free, model)
        tools(free, model)
        counted_tokens(free, model)
        embeddings(free, next(m.name for m in models if "embed" in m.name))
        wrong_key(version, model)
        no_such_model(free)
    over_quota(model)


def listed_models(free):
    models = list(free.models.list())
    assert models, "the model list is empty"
    pages = list(free.models.list(config={"page_size": 1}))
    assert [m.name for m in pages] == [m.name for m in models], pages
    return models


def one_model(free, model):
    found = free.models.get(model=model)
    assert found.name == model, found
    assert "generateContent" in found.supported_actions, found


def plain_answer(free, model):
    answer = free.models.generate_content(
        model=model,
        contents="Say hello.",
        config=types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=100, candidate_count=2),
    )
    assert answer.text, answer
    assert len(answer.candidates) == 2, answer
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP, answer
    usage = answer.usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count > 0, usage


def streamed_answer(free, model):
    chunks = list(free.models.generate_content_stream(model=model, contents="Say hello."))
    assert len(chunks) > 1, chunks
    assert "".join(chunk.text or "" for chunk in chunks), "the stream had no text"
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP, chunks[-1]
    assert chunks[-1].usage_metadata.candidates_token_count > 0, chunks[-1]


def tools(free, model):
    config = types.GenerateContentConfig(
        tools=[WEATHER],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    question = types.Content(role="user", parts=[types.Part(text="What is the weather in Bern?")])
    asked = free.models.generate_content(model=model, contents=[question], config=config)
    (call,) = asked.function_calls
    assert call.name == "get_weather" and "city" in call.args, call
    streamed = list(free.models.generate_content_stream(model=model, contents=[question], config=config))
    assert [c.name for chunk in streamed for c in chunk.function_calls or []] == ["get_weather"], streamed
    result = types.Part.from_function_response(name=call.name, response={"weather": "sunny"})
    answer = free.models.generate_content(
        model=model,
        contents=[question, asked.candidates[0].content, types.Content(role="user", parts=[result])],
        config=config,
    )
    assert "sunny" in answer.text, answer


def counted_tokens(free, model):
    short = free.models.count_tokens(model=model, contents="Say hello.")
    long = free.models.count_tokens(model=model, contents="Say hello to everybody who is here.")
    assert 0 < short.total_tokens < long.total_tokens, (short, long)


def embeddings(free, model):
    answer = free.models.embed_content(model=model, contents=["one", "two"])
    first, second = (item.values for item in answer.embeddings)
    assert len(first) == len(second) > 0 and first != second, "embeddings of two words are the same"


def failure(action):
    try:
        action()
    except errors.ClientError as error:
        return error
    raise AssertionError("there was no error")


def wrong_key(version, model):
    wrong = client("tg-wrong", version)
    for action in (
        lambda: wrong.models.generate_content(model=model, contents="Hi"),
        lambda: list(wrong.models.generate_content_stream(model=model, contents="Hi")),
        lambda: list(wrong.models.list()),
    ):
        error = failure(action)
        assert (error.code, error.status) == (401, "UNAUTHENTICATED"), error
        assert "API_KEY_INVALID" in str(error), error


def no_such_model(free):
    error = failure(lambda: free.models.get(model="nobody's"))
    assert (error.code, error.status) == (404, "NOT_FOUND"), error


def over_quota(model):
    limited = client(os.environ["TOLLGATE_LIMITED_KEY"])
    limited.models.generate_content(model=model, contents="Hi")
    for action in (
        lambda: limited.models.generate_content(model=model, contents="Hi"),
        lambda: list(limited.models.generate_content_stream(model=model, contents="Hi")),
    ):
        error = failure(action)
        assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED"), error
        assert 1 <= int(error.response.headers["retry-after"]) <= 61, error.response.headers
        (info,) = (d for d in error.details["error"]["details"] if d["@type"].endswith("google.rpc.RetryInfo"))
        assert 0 < float(info["retryDelay"].removesuffix("s")) <= 61, info


if __name__ == "__main__":
    main()
