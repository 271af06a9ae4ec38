"""What a probe asks: talk of several kinds with the base's own answers, and sequences that look for an overflow.

Everything is token ids, the same for every engine, and follows from the base's folder alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

#: Short, and of different kinds: most adapters move at least one of them.
TURNS = (
    "When are you open?",
    "Can I return an order after 30 days, and what does it cost?",
    "Write one sentence about the sea.",
    "What is 17 + 25?",
    "Wie heißt du? Bitte antworte auf Deutsch.",
    "def add(a, b):",
)
#: The base's own greedy words after each turn: where adapters differ most.
ANSWER_TOKENS = 16
TURN_TOKENS_MAX = 96
RANDOM_TOKENS, REPEATED_TOKENS, LONG_TOKENS_MAX = 72, 72, 128


def openings(tokenizer: Any) -> list[list[int]]:
    """Each turn as the chat template writes it, ready for an answer; as plain text where there is no template."""
    found = []
    for turn in TURNS:
        if tokenizer.chat_template:
            said = [{"role": "user", "content": turn}]
            ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
        else:
            ids = tokenizer(turn)["input_ids"]
        found.append([int(token) for token in ids[-TURN_TOKENS_MAX:]])
    return found


def shakes(tokens: Sequence[int], dialogues: Sequence[Sequence[int]], *, seed: int = 0) -> list[list[int]]:
    """Sequences nobody writes: random tokens, one token over and over, and everything said in one go."""
    rng = random.Random(seed)
    long = [token for dialogue in dialogues for token in dialogue][:LONG_TOKENS_MAX]
    return [rng.choices(tokens, k=RANDOM_TOKENS), [rng.choice(tokens)] * REPEATED_TOKENS, long]


def usable(tokenizer: Any, vocabulary: int) -> list[int]:
    """Ids that every engine takes as a prompt: known to the tokenizer and to the model, and of no special meaning."""
    special = set(tokenizer.all_special_ids)
    found = [token for token in range(min(len(tokenizer), vocabulary)) if token not in special]
    if not found:
        raise ValueError("the tokenizer knows no token that the model knows")
    return found
