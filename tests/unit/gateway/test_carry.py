"""Defaults beneath the client's own values."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from adapters.carried import SAMPLING, Carried
from gateway.api.openai.fields import TABLES
from gateway.carry import beneath
from gateway.values import Endpoint

CARRIED = Carried(
    system="Be brief.",
    sampling={"temperature": 0.3, "top_p": 0.8, "top_k": 20, "max_tokens": 50, "seed": 7},
    stop=("###",),
)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_chat_gets_the_system_prompt_the_sampling_and_the_stop_strings() -> None:
    made = beneath(CHAT, CARRIED, "chat")
    assert made == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "temperature": 0.3,
        "top_p": 0.8,
        "top_k": 20,
        "max_tokens": 50,
        "seed": 7,
        "stop": ["###"],
    }


@pytest.mark.parametrize(
    ("said", "field", "there"),
    [
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 1}, "top_p", 1),
        ({"stop": []}, "stop", []),
        ({"stop": "x"}, "stop", "x"),
        ({"seed": 0}, "seed", 0),
        ({"max_completion_tokens": 9}, "max_tokens", None),
        ({"max_tokens": 9}, "max_tokens", 9),
        ({"temperature": None}, "temperature", 0.3),
        ({"stop": None}, "stop", ["###"]),
        ({"min_tokens": 60}, "max_tokens", None),
        ({"min_tokens": 50}, "max_tokens", 50),
    ],
)
def test_what_the_client_said_wins_and_null_says_nothing(said: dict[str, Any], field: str, there: Any) -> None:
    assert beneath({**CHAT, **said}, CARRIED, "chat").get(field) == there


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_client_that_brings_its_own_instructions_keeps_them(role: str) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": role, "content": "mine"}]
    assert beneath({"messages": messages}, CARRIED, "chat")["messages"] == messages
    assert "instructions" not in beneath({"input": messages}, CARRIED, "responses")


def test_a_completion_gets_no_system_prompt() -> None:
    made = beneath({"prompt": "Once"}, CARRIED, "completions")
    assert made["prompt"] == "Once"
    assert "messages" not in made
    assert made["stop"] == ["###"]


def test_a_response_gets_what_its_endpoint_takes_by_its_own_names() -> None:
    made = beneath({"input": "hello"}, CARRIED, "responses")
    assert made == {
        "input": "hello",
        "instructions": "Be brief.",
        "temperature": 0.3,
        "top_p": 0.8,
        "max_output_tokens": 50,
    }
    assert beneath({"input": "a", "instructions": "mine"}, CARRIED, "responses")["instructions"] == "mine"
    assert beneath({"input": "a", "max_output_tokens": 3}, CARRIED, "responses")["max_output_tokens"] == 3


def test_embeddings_are_left_alone() -> None:
    assert beneath({"input": "a"}, CARRIED, "embeddings") == {"input": "a"}


@pytest.mark.parametrize("said", [{"n": 2}, {"best_of": 2}])
def test_several_answers_are_never_made_greedy(said: dict[str, int]) -> None:
    greedy = Carried(sampling={"temperature": 0})
    assert "temperature" not in beneath({"prompt": "a", **said}, greedy, "completions")
    assert beneath({"prompt": "a"}, greedy, "completions")["temperature"] == 0


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "embeddings"])
def test_the_request_itself_is_never_changed_for_another_try_may_go_elsewhere(endpoint: Endpoint) -> None:
    document = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a", "stop": None}
    before = copy.deepcopy(document)
    beneath(document, CARRIED, endpoint)["stop"] = "changed"
    assert document == before
    assert CARRIED.stop == ("###",)


def test_every_default_is_a_field_that_the_endpoint_takes() -> None:
    everything = Carried(system="s", sampling=dict.fromkeys(SAMPLING, 1), stop=("x",))
    for endpoint in ("chat", "completions", "responses"):
        made = beneath({"messages": [], "prompt": "", "input": ""}, everything, endpoint)
        assert made.keys() - {"messages", "prompt", "input"} <= TABLES[endpoint].keys()
