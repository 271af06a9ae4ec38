"""The prompts of a probe: the same each time, within every bound, and of several kinds."""

from __future__ import annotations

import pytest

from training.probe import prompts


class Tokenizer:
    """Letters are tokens; 0 to 3 are special."""

    all_special_ids = (0, 1, 2, 3)

    def __init__(self, template: str | None = "yes") -> None:
        self.chat_template = template

    def __len__(self) -> int:
        return 300

    def apply_chat_template(self, said: list[dict[str, str]], **_: object) -> list[int]:
        return [1, *map(ord, said[0]["content"]), 2]

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 256 for letter in text]}


def test_turns_go_through_the_template_or_stand_alone() -> None:
    spoken = prompts.openings(Tokenizer())
    assert len(spoken) == len(prompts.TURNS)
    assert all(ids[0] == 1 and ids[-1] == 2 for ids in spoken)
    assert prompts.openings(Tokenizer(None))[0] == [ord(letter) for letter in prompts.TURNS[0]]


def test_a_template_that_says_much_is_cut_to_its_end() -> None:
    class Wordy(Tokenizer):
        def apply_chat_template(self, said: list[dict[str, str]], **_: object) -> list[int]:
            return [7] * 5000 + [9]

    assert all(len(ids) == prompts.TURN_TOKENS_MAX and ids[-1] == 9 for ids in prompts.openings(Wordy()))


def test_shakes_are_long_the_same_each_time_and_made_of_usable_tokens() -> None:
    tokens = prompts.usable(Tokenizer(), 280)
    assert tokens == list(range(4, 280))
    dialogues = [[4] * 100, [5] * 100]
    found = prompts.shakes(tokens, dialogues)
    assert found == prompts.shakes(tokens, dialogues)
    random_one, repeated, long = found
    assert len(random_one) > 64
    assert len(set(repeated)) == 1
    assert len(repeated) > 64
    assert long == ([4] * 100 + [5] * 100)[: prompts.LONG_TOKENS_MAX]
    assert {*random_one, *repeated} <= set(tokens)


def test_a_tokenizer_that_shares_nothing_with_the_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token"):
        prompts.usable(Tokenizer(), 4)
