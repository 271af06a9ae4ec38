"""Stored completions through OpenAI's own SDK: listed, read, relabelled and deleted, by their tenant alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e.houses import BASE, House, eventually
from tests.e2e.test_gateway_feedback import listed, told
from tests.e2e.test_sdk import nullable

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture
def key(house: House) -> str:
    """A key of a tenant that nothing is stored of yet."""
    return house.new_key(tenant=f"tenant-{uuid.uuid4().hex[:12]}", roles=["user", "engineer"])[0]


@pytest.fixture
def sdk(house: House, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0) as client:
        yield client


def ask(sdk: openai.OpenAI, text: str = "hello", **fields: Any) -> ChatCompletion:
    answer: ChatCompletion = sdk.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": text}], **({"store": True} | fields)
    )
    return answer


def labels(found: ChatCompletion) -> Any:
    return found.to_dict()["metadata"]


def streamed(sdk: openai.OpenAI) -> list[ChatCompletionChunk]:
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    return list(sdk.chat.completions.create(model=BASE, messages=messages, store=True, stream=True))


def all_listed(sdk: openai.OpenAI, count: int) -> list[ChatCompletion]:
    return eventually(lambda: found if len(found := list(sdk.chat.completions.list())) == count else None) or []


def test_a_stored_answer_is_read_at_once_with_its_messages(sdk: openai.OpenAI) -> None:
    made = sdk.chat.completions.create(
        model=BASE,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hello there"}]},
            {"role": "user", "content": "and now"},
        ],
        store=True,
        metadata={"team": "a"},
        temperature=0.5,
        user="u-1",
    )
    found = sdk.chat.completions.retrieve(made.id)
    assert (found.id, found.object, found.model, found.created) == (made.id, "chat.completion", BASE, made.created)
    assert found.choices[0].message.content == made.choices[0].message.content
    assert found.choices[0].finish_reason == made.choices[0].finish_reason
    assert found.usage is not None
    assert made.usage is not None
    assert found.usage.total_tokens == made.usage.total_tokens
    extra = found.model_extra or {}
    assert (labels(found), extra["temperature"], extra["input_user"]) == ({"team": "a"}, 0.5, "u-1")
    messages = list(sdk.chat.completions.messages.list(made.id))
    assert [(each.role, each.content) for each in messages] == [
        ("system", "Be brief."),
        ("user", None),
        ("user", "and now"),
    ]
    assert messages[1].content_parts is not None
    assert messages[1].content_parts[0].type == "text"
    assert messages[1].content_parts[0].text == "hello there"
    page = sdk.chat.completions.messages.list(made.id, limit=1, order="desc")
    assert ([each.content for each in page.data], page.has_more) == (["and now"], True)
    assert [each.id for each in page] == [each.id for each in reversed(messages)]


def test_a_streamed_answer_is_stored_whole(sdk: openai.OpenAI) -> None:
    chunks = streamed(sdk)
    name = chunks[0].id
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    found = sdk.chat.completions.retrieve(name)
    assert (found.object, found.choices[0].message.content) == ("chat.completion", text)
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.completion_tokens > 0


def test_the_list_holds_what_was_to_be_stored_in_pages_and_by_filters(sdk: openai.OpenAI, house: House) -> None:
    made = [ask(sdk, metadata={"n": str(i % 2), "odd [key]": "ü&="}).id for i in range(5)]
    ask(sdk, store=False)
    ask(sdk, store=None)
    assert [each.id for each in all_listed(sdk, 5)] == made
    completions = sdk.chat.completions
    page = completions.list(limit=2)
    assert ([each.id for each in page.data], page.has_more) == (made[:2], True)
    assert [each.id for each in page] == made  # the SDK asks for the next page by itself
    assert [each.id for each in completions.list(order="desc", limit=2)] == made[::-1]
    assert [each.id for each in completions.list(metadata={"n": "1"})] == made[1::2]
    assert [each.id for each in completions.list(metadata={"n": "0", "odd [key]": "ü&="}, limit=1)] == made[::2]
    assert list(completions.list(metadata={"n": "2"})) == []
    assert [each.id for each in completions.list(model=BASE, after=made[3])] == made[4:]
    assert list(completions.list(model="another")) == []
    with pytest.raises(openai.BadRequestError) as caught:
        completions.list(after="chatcmpl-nowhere")
    assert caught.value.param == "after"
    raw = completions.with_raw_response.list(limit=1).http_response.json()
    assert (raw["object"], raw["first_id"], raw["last_id"], raw["has_more"]) == ("list", made[0], made[0], True)


def test_metadata_is_replaced_and_its_reserved_keys_become_feedback(sdk: openai.OpenAI, house: House, key: str) -> None:
    first, second = ask(sdk, user="u-1", metadata={"team": "a"}).id, ask(sdk).id
    pairs = {
        "feedback.thumbs": "down",
        "feedback.scalar.stars": "2",
        "feedback.correction": "write to ada@example.com",
        "feedback.preferred_over": second,
        "feedback.implicit": "copied",
        "note": "from bob@example.com",
    }
    updated = sdk.chat.completions.update(first, metadata=pairs)
    kept = pairs | {"feedback.correction": "write to [EMAIL]", "note": "from [EMAIL]"}
    assert labels(updated) == kept
    assert labels(sdk.chat.completions.retrieve(first)) == kept
    rows = told(house, 5, key=key, target=first)
    assert {row["kind"]: (row["value"], row["text"], row["other"], row["name"]) for row in rows} == {
        "thumbs": (-1.0, None, None, ""),
        "scalar": (2.0, None, None, "stars"),
        "correction": (None, "write to [EMAIL]", None, ""),
        "preference": (None, None, second, ""),
        "implicit": (None, None, None, "copied"),
    }
    assert {(row["source"], row["rater"]) for row in rows} == {("sdk", "u-1")}
    sdk.chat.completions.update(first, metadata={"feedback.thumbs": "up"})
    eventually(lambda: {row["value"] for row in listed(house, key, target=first) if row["kind"] == "thumbs"} == {1.0})
    cleared = sdk.chat.completions.update(first, metadata=None)
    assert labels(cleared) == {}
    eventually(lambda: {row["value"] for row in listed(house, key, target=first) if row["kind"] == "thumbs"} == {None})


def test_metadata_that_the_request_came_with_is_feedback_too(sdk: openai.OpenAI, house: House, key: str) -> None:
    name = ask(sdk, user="u-2", metadata={"feedback.implicit": "regenerated", "feedback.thumbs": "perhaps"}).id
    (row,) = eventually(lambda: listed(house, key, target=name))
    assert (row["kind"], row["name"], row["rater"], row["source"]) == ("implicit", "regenerated", "u-2", "sdk")


@pytest.mark.parametrize(
    "metadata",
    [
        {str(i): "" for i in range(17)},
        {"k" * 65: "v"},
        {"k": "v" * 513},
        {"k": 7},
        {"feedback.thumbs": "maybe"},
        {"feedback.mood": "good"},
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_beyond_its_bounds_is_refused_and_changes_nothing(sdk: openai.OpenAI, metadata: Any) -> None:
    name = ask(sdk, metadata={"team": "a"}).id
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.update(name, metadata=metadata)
    assert labels(sdk.chat.completions.retrieve(name)) == {"team": "a"}


def test_a_deleted_answer_is_gone(sdk: openai.OpenAI) -> None:
    names = [ask(sdk).id for _ in range(3)]
    all_listed(sdk, 3)
    gone = sdk.chat.completions.delete(names[1])
    assert (gone.id, gone.object, gone.deleted) == (names[1], "chat.completion.deleted", True)
    assert [each.id for each in sdk.chat.completions.list()] == [names[0], names[2]]
    for call in (sdk.chat.completions.retrieve, sdk.chat.completions.delete, sdk.chat.completions.messages.list):
        with pytest.raises(openai.NotFoundError):
            call(names[1])
    for each in sdk.chat.completions.list(limit=1):
        sdk.chat.completions.delete(each.id)  # the next page goes on after what is gone
    assert list(sdk.chat.completions.list()) == []


def test_another_tenant_learns_nothing(sdk: openai.OpenAI, house: House) -> None:
    name = ask(sdk, metadata={"team": "a"}).id
    all_listed(sdk, 1)
    stranger, _ = house.new_key(tenant="stranger")
    made_up = "chatcmpl-" + "0" * (len(name) - len("chatcmpl-"))
    with house.client(stranger) as client:
        assert client.get(CHAT).json()["data"] == []

        def said(method: str, target: str, tail: str = "", **sent: Any) -> tuple[int, bytes]:
            answer = client.request(method, f"{CHAT}/{target}{tail}", **sent)
            return answer.status_code, answer.content.replace(target.encode(), b"ID")

        ways: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "", {}),
            ("GET", "/messages", {}),
            ("POST", "", {"json": {"metadata": {"feedback.thumbs": "up"}}}),
            ("DELETE", "", {}),
        ]
        for method, tail, sent in ways:
            theirs = said(method, name, tail, **sent)
            assert theirs == said(method, made_up, tail, **sent)
            assert theirs[0] == 404
            assert b"completion_not_found" in theirs[1]
        after = [client.get(CHAT, params={"after": each}) for each in (name, made_up)]
        assert {answer.status_code for answer in after} == {400}
        assert after[0].content == after[1].content
    assert labels(sdk.chat.completions.retrieve(name)) == {"team": "a"}


def test_only_keys_that_capture_in_full_store_and_only_users_and_engineers_change(
    sdk: openai.OpenAI, house: House, key: str
) -> None:
    name = ask(sdk).id
    tenant = house.record(
        str(
            sdk.chat.completions.with_raw_response.create(
                model=BASE, messages=[{"role": "user", "content": "x"}]
            ).headers["x-request-id"]
        )
    ).tenant
    quiet, _ = house.new_key(tenant=tenant, capture="metadata")
    unstored = house.chat(key=quiet, store=True)
    house.record(unstored.headers["x-request-id"])
    auditor, _ = house.new_key(tenant=tenant, roles=["auditor"])
    with house.client(auditor) as client:
        assert [each["id"] for each in client.get(CHAT).json()["data"]] == [name]
        assert client.get(f"{CHAT}/{name}").status_code == 200
        assert client.post(f"{CHAT}/{name}", json={"metadata": {}}).status_code == 403
        assert client.delete(f"{CHAT}/{name}").status_code == 403


def test_what_is_told_satisfies_openais_own_schema(sdk: openai.OpenAI, house: House, shared: Path) -> None:
    document = nullable(json.loads((shared / "data/openai/openapi-2.3.0-trimmed.json").read_text()))
    schema = {"$ref": "#/components/schemas/CreateChatCompletionResponse", "components": document["components"]}
    names = [ask(sdk).id, streamed(sdk)[0].id]
    all_listed(sdk, 2)
    for each in names:
        raw = sdk.chat.completions.with_raw_response.retrieve(each).http_response.json()
        jsonschema.Draft202012Validator(schema).validate(raw)


def test_the_hot_path_is_as_it_was(house: House) -> None:
    with house.client() as client:
        for method in ("PUT", "DELETE", "PATCH"):
            answer = client.request(method, CHAT)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
        assert client.get("/v1/completions").headers["allow"] == "POST"
        assert client.get(CHAT, params={"limit": 0}).status_code == 400
        assert client.get(CHAT, params={"order": "sideways"}).status_code == 400
    assert httpx.get(f"{house.url}{CHAT}", trust_env=False).status_code == 401


@pytest.mark.parametrize("odd", ["%FF%FE", "%00", "%ED%A0%80", "x%22%27%3B", "x" * 4000])
def test_odd_ids_are_unknown_ones(house: House, odd: str) -> None:
    with house.client() as client:
        assert client.get(f"{CHAT}/{odd}").status_code == 404
        assert client.get(CHAT, params={"metadata[a]": "b"}).status_code == 200
        assert client.get(f"{CHAT}?after={odd[:500]}").status_code == 400
        assert client.get(f"{CHAT}?model={odd[:500]}&metadata[{odd[:60]}]={odd[:500]}").status_code == 200
        body = b'{"metadata": {"k": "\\ud800"}}'
        assert client.post(f"{CHAT}/chatcmpl-1", content=body, headers=JSON).json()["error"]["param"] == "metadata"
