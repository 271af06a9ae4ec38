"""Looks at the rows and the base before anything is chosen: tokens by the serving template, sizes, memory. Heavy."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import BadCheckpoint
from training.launchers.world import agreed
from training.recipes.auto import Facts, Kinds
from training.recipes.recipe import ONLINE, Method, Recipe
from training.recipes.rows import Row

_MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen. `tokens` is the length of each row, of its longer side where it has two."""

    tokens: Sequence[int]
    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    positions: int
    memory_bytes: int
    accelerator: bool

    def facts(self, kinds: Kinds) -> Facts:
        """What choices follow from."""
        within = sorted(self.tokens) or [0]
        return Facts(
            kinds=kinds, rows=len(self.tokens), tokens_mean=sum(within) / len(within), tokens_most=within[-1],
            tokens_p99=within[min(len(within) - 1, len(within) * 99 // 100)], parameters=self.parameters,
            layers=self.layers, hidden=self.hidden, vocabulary=self.vocabulary, positions=self.positions,
            memory_bytes=self.memory_bytes, accelerator=self.accelerator,
        )  # fmt: skip


def measured(recipe: Recipe, method: Method, rows: Sequence[Row], base: Path) -> Look:
    """Look at rows and base. Raises BadCheckpoint."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise BadCheckpoint(f"{base} cannot be loaded as a base to train on: {first}") from error
    text = config.get_text_config()
    more = recipe.rl.answer_tokens_max if method in ONLINE else 0
    return Look(
        tokens=[_tokens(tokenizer, row) + more for row in rows],
        parameters=sum(part.numel() for part in empty.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        positions=text.max_position_embeddings,
        memory_bytes=agreed(_memory_bytes()),
        accelerator=torch.cuda.is_available(),
    )


def remembered(look: Look, out: Path) -> Look:
    """The look with the memory that there was when the run first started: a run that goes on makes the choices that it
    made, whatever else the machine does by then."""
    kept = out / _MEMORY
    return replace(look, memory_bytes=int(kept.read_text())) if kept.is_file() else look


def remember(memory_bytes: int, out: Path) -> None:
    """Write down what there was, for a run that goes on."""
    (out / _MEMORY).write_text(f"{memory_bytes}\n")


def _tokens(tokenizer: Any, row: Row) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    if "prompt_ids" in row:
        ids = [len(row[name]) for name in ("completion_ids", "chosen_ids", "rejected_ids") if name in row]
        return len(row["prompt_ids"]) + max(ids, default=0)
    if "text" in row:
        return len(tokenizer(row["text"])["input_ids"]) + 1  # and the end
    if "messages" in row:
        return _said(tokenizer, row["messages"])
    prompt = row.get("prompt", "")
    answers = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
    return max(_together(tokenizer, prompt, answer) for answer in answers or [""])


def _together(tokenizer: Any, prompt: Any, answer: Any) -> int:
    if isinstance(prompt, str) and isinstance(answer, str):
        return len(tokenizer(prompt + answer)["input_ids"]) + 1
    turns = [*_turns(prompt, "user"), *_turns(answer, "assistant")]
    return _said(tokenizer, turns)


def _turns(said: Any, role: str) -> list[Mapping[str, Any]]:
    if isinstance(said, str):
        return [{"role": role, "content": said}] if said else []
    return list(said)


def _said(tokenizer: Any, turns: Sequence[Mapping[str, Any]]) -> int:
    return len(tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=False))


def _memory_bytes() -> int:
    """What a run may take: the accelerator's free memory, or the machine's, or what the container is given of it."""
    import torch

    if torch.cuda.is_available():
        free: int = torch.cuda.mem_get_info()[0]
        return free
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found[1]) << 10 if found else 8 << 30
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text().strip() if limit.is_file() else "max"
    ours = resource.getrlimit(resource.RLIMIT_DATA)[0]
    free = min(free, ours) if ours != resource.RLIM_INFINITY else free
    return min(free, int(given)) if given.isdigit() else free
