"""What a user of the official OpenAI SDK meets at Tollgate, exceptions included."""

import os

import openai

URL = os.environ["TOLLGATE_URL"] + "/v1"


def client(key):
    # No retries of its own: an error must come from the first answer.
    return openai.OpenAI(base_url=URL, api_key=key, max_retries=0)


def main():
    free = client(os.environ["TOLLGATE_KEY"])
    models = [model.id for model in free.models.list()]
    assert models, "the model list is empty"
    model = next(name for name in models if "embed" not in name)
    plain_answer(free, model)
    streamed_answer(free, model)
    embeddings(free, models)
    responses(free, model)
    wrong_key(model)
    over_quota(model)


def plain_answer(free, model):
    answer = free.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say hello."}])
    assert answer.choices[0].message.content, answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0, answer


def streamed_answer(free, model):
    stream = free.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Say hello."}],
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text, "the stream had no text"
    assert usage is not None and usage.completion_tokens > 0, usage


def embeddings(free, models):
    model = next((name for name in models if "embed" in name), models[0])
    answer = free.embeddings.create(model=model, input=["one", "two"])
    first, second = (item.embedding for item in answer.data)
    assert len(first) == len(second) > 0 and first != second, "embeddings of two words are the same"


def responses(free, model):
    answer = free.responses.create(model=model, input="Say hello.")
    assert answer.output_text, answer
    assert answer.usage.total_tokens > 0, answer


def wrong_key(model):
    try:
        client("tg-wrong").chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    except openai.AuthenticationError as error:
        assert error.status_code == 401, error
        assert error.code == "invalid_api_key", error
    else:
        raise AssertionError("a wrong key was let in")


def over_quota(model):
    limited = client(os.environ["TOLLGATE_LIMITED_KEY"])
    limited.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    try:
        limited.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    except openai.RateLimitError as error:
        seconds = error.response.headers["retry-after"]
        assert seconds.isdigit() and 1 <= int(seconds) <= 61, f"retry-after: {seconds}"
    else:
        raise AssertionError("a request over the limit was let through")


if __name__ == "__main__":
    main()
