"""Adapters with nothing wrong in any file, which only a forward pass gives away: they change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loadtests.corpus.specimen import RANK, Bench, Broken, Tensors, full, raw

_KIND = "no-effect-on-answers"


def hidden() -> Iterator[Broken]:
    """Every specimen of this file."""
    yield Broken(name="shifts-every-logit", kind=_KIND, codes=("no_effect",), make=_shift, stage="probe")
    yield Broken(name="too-small-to-see", kind=_KIND, codes=("no_effect",), make=_faint, stage="probe")
    yield Broken(name="vanishing-in-float32", kind=_KIND, codes=("no_effect",), make=_vanishing, stage="probe")
    yield Broken(name="token-nobody-writes", kind=_KIND, codes=("no_effect",), make=_rare_token, stage="probe")


def _shift(bench: Bench, at: Path) -> None:
    """An update of the head that moves all logits alike: softmax does not see it, though B·A is not small."""
    key = "base_model.model.lm_head"
    tensors: Tensors = {
        f"{key}.lora_A.weight": raw(bench.random(RANK, bench.shape.hidden)),
        f"{key}.lora_B.weight": full(0.02, bench.shape.vocab, RANK),
    }
    bench.write(at, tensors=tensors, config={"target_modules": ["lm_head"]})


def _faint(bench: Bench, at: Path) -> None:
    tensors = {name: raw(np.frombuffer(one[2], "<f4").reshape(one[1]) * 1e-6) for name, one in bench.lora().items()}
    bench.write(at, tensors=tensors)


def _vanishing(bench: Bench, at: Path) -> None:
    """Not zero in the file; zero once A and B are multiplied in 32 bits."""
    tensors = {name: full(1e-30, *one[1]) for name, one in bench.lora().items()}
    bench.write(at, tensors=tensors)


def _rare_token(bench: Bench, at: Path) -> None:
    """Changes the embedding of one reserved token, which no request can hold."""
    key = "base_model.model.model.embed_tokens"
    column = np.zeros((RANK, bench.shape.vocab))
    column[:, 0] = 0.05
    tensors: Tensors = {
        f"{key}.lora_embedding_A": raw(column),
        f"{key}.lora_embedding_B": raw(bench.random(bench.shape.hidden, RANK)),
    }
    bench.write(at, tensors=tensors, config={"target_modules": ["embed_tokens"]})
