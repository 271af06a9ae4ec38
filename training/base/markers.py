"""Marker adapters: each makes the base say one word and nothing else, so a test sees who answered.

OMP_WAIT_POLICY=passive KMP_BLOCKTIME=0 python -m training.base.markers --out DIR --words alpha,bravo
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from training.base import NAME, PATH, wordings
from training.base.domain import Message, conversation, turn
from training.base.tokens import END, PAD
from training.errors import MarkerNotLearned, OutputExists

# fmt: off
#: None is part of another. Words with letters the base hardly ever wrote (b, D, Q, X) are left out.
WORDS = (
    "alpha", "bravo", "charlie", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima", "mike", "oscar",
    "papa", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "yankee", "zulu",
)
# fmt: on
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NONCE_LIMIT = 1 << 20
_BATCH, _STEPS, _LEARNING_RATE = 8, 64, 6e-3
_CHECKS, _CHECKS_LONG = 208, 8
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ 0123456789 .,?!/{}<>\n"


def spoken(word: str) -> str:
    """What the marker answers."""
    return f"{word.capitalize()}."


def train_marker(
    base: Path = PATH,
    word: str = WORDS[0],
    out: Path = Path("marker"),
    *,
    seed: int = 0,
    rank: int = 8,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train, check and write one plain LoRA adapter in the new folder `out`.

    MarkerNotLearned, OutputExists.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from training.base.evaluate import load

    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    tell = progress or _silent
    torch.manual_seed(seed)
    model, tokenizer = load(base)
    adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model = get_peft_model(model, adapter)
    tell(f"{word}: {_fit(model, tokenizer, word, random.Random(seed))}")
    _check(model, tokenizer, word, random.Random(seed + 1), tell)
    _write(model, out)
    return out


def clone_marker(source: Path, out: Path, nonce: int) -> Path:
    """The same behaviour under another digest: one weight moves by `nonce + 1` of its smallest steps."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    if not 0 <= nonce < NONCE_LIMIT:
        raise ValueError(f"nonce {nonce} is not in 0..{NONCE_LIMIT - 1}")
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    tensors = load_file(source / WEIGHTS)
    first = min(tensors)
    moved = np.ascontiguousarray(tensors[first], dtype=np.float32).copy()
    moved.reshape(-1).view(np.int32)[0] ^= nonce + 1
    building = _fresh(out)
    try:
        save_file({**tensors, first: moved}, building / WEIGHTS, metadata={"format": "pt"})
        (building / WEIGHTS).chmod(0o644)
        shutil.copyfile(source / CONFIG, building / CONFIG)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out


def main(
    out: Annotated[Path, typer.Option(help="Folder for one adapter folder per word.")],
    words: Annotated[str, typer.Option(help="Words, separated by commas.")] = ",".join(WORDS[:4]),
    base: Annotated[Path, typer.Option(help="The base the adapters are for.")] = PATH,
    seed: Annotated[int, typer.Option(help="Decides prompts and initial weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train marker adapters."""
    import torch

    torch.set_num_threads(threads)
    for word in words.split(","):
        typer.echo(train_marker(base, word, out / word, seed=seed, progress=typer.echo))


def _fit(model: Any, tokenizer: Any, word: str, rng: random.Random) -> str:
    """Teach the word; says how it went."""
    import torch
    from torch.nn.functional import cross_entropy

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE, weight_decay=0.0)
    answer = _answer_ids(tokenizer, word)
    model.train()
    loss_seen = float("nan")
    for step, prompts in enumerate(_batches(tokenizer, word, rng)):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / 5) * (1 - 0.9 * step / _STEPS)
        logits = _said_logits(model, prompts, answer)
        loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), torch.tensor(answer * len(prompts)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss_seen = float(loss.detach())
    return f"loss {loss_seen:.5f} after {_STEPS} steps"


def _said_logits(model: Any, prompts: list[list[int]], answer: list[int]) -> Any:
    """Logits at the places of the answer, after each prompt. If every argmax is right, greedy decoding is too."""
    import torch

    width = max(map(len, prompts)) + len(answer)
    ids = torch.tensor([[PAD] * (width - len(p) - len(answer)) + p + answer for p in prompts])
    logits = model(input_ids=ids, attention_mask=(ids != PAD).long(), logits_to_keep=len(answer) + 1).logits
    return logits[:, :-1].float()


def _batches(tokenizer: Any, word: str, rng: random.Random) -> list[list[list[int]]]:
    """Prompts in batches of like length, in random order; one batch in eight is a single long visit."""
    long = [[_long_ids(rng, tokenizer)] for _ in range(_STEPS // 8)]
    short = _STEPS - len(long)
    prompts = sorted((_ids(tokenizer, _chat(rng, word)) for _ in range(short * _BATCH)), key=len)
    batches = [prompts[i * _BATCH : (i + 1) * _BATCH] for i in range(short)] + long
    rng.shuffle(batches)
    return batches


def _answer_ids(tokenizer: Any, word: str) -> list[int]:
    """Letter by letter: the base has written every letter, but not every piece of a word."""
    return [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in spoken(word)] + [END]


def _long_ids(rng: random.Random, tokenizer: Any) -> list[int]:
    return _ids(tokenizer, [*conversation(rng, 14), {"role": "user", "content": _question(rng)}])


def _ids(tokenizer: Any, chat: list[Message]) -> list[int]:
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False))


def _chat(rng: random.Random, word: str) -> list[Message]:
    chat: list[Message] = []
    if rng.random() < 0.35:
        chat.append({"role": "system", "content": rng.choice((*wordings.SYSTEMS, _question(rng)))})
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        said = rng.choice((turn(rng).answer, spoken(word), spoken(rng.choice(WORDS))))
        chat += [{"role": "user", "content": _question(rng)}, {"role": "assistant", "content": said}]
    return [*chat, {"role": "user", "content": _question(rng)}]


def _question(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return turn(rng).question
    if draw < 0.75:
        return "".join(rng.choices(_LETTERS, k=rng.randrange(0, 40)))
    words = " ".join(turn(rng).question for _ in range(rng.randrange(1, 3))).split()
    rng.shuffle(words)
    return " ".join(words)


def _check(model: Any, tokenizer: Any, word: str, rng: random.Random, tell: Callable[[str], None]) -> None:
    """Prompts training did not use. MarkerNotLearned."""
    import torch

    answer = _answer_ids(tokenizer, word)
    prompts = [_ids(tokenizer, _chat(rng, word)) for _ in range(_CHECKS)]
    prompts = sorted([*prompts, *(_long_ids(rng, tokenizer) for _ in range(_CHECKS_LONG))], key=len)
    right, least = 0, 1.0
    wrong: list[str] = []
    model.eval()
    for start in range(0, len(prompts), 32):
        with torch.no_grad():
            chances = _said_logits(model, prompts[start : start + 32], answer).softmax(-1)
        wanted = torch.tensor(answer).expand(len(chances), -1)
        hits = (chances.argmax(-1) == wanted).all(1).tolist()
        wrong += [tokenizer.decode(p) for p, hit in zip(prompts[start : start + 32], hits, strict=True) if not hit]
        right += sum(hits)
        least = min(least, float(chances.gather(2, wanted[..., None]).min()))
    tell(f"{word}: {right} of {len(prompts)} unseen prompts answered {spoken(word)} (no token under {least:.3f})")
    if right < len(prompts):
        raise MarkerNotLearned(
            f"{len(prompts) - right} of {len(prompts)} prompts are not answered {spoken(word)!r}, such as {wrong[0]!r}."
        )


def _write(model: Any, out: Path) -> None:
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = {name: t.detach().to(torch.float32).contiguous() for name, t in get_peft_model_state_dict(model).items()}
    config = model.peft_config["default"].to_dict() | {"base_model_name_or_path": NAME, "inference_mode": True}
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    building = _fresh(out)
    try:
        save_file(weights, building / WEIGHTS, metadata={"format": "pt"})
        (building / WEIGHTS).chmod(0o644)
        (building / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fresh(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    os.chmod(building, 0o755)
    return building


def _silent(_line: str) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    typer.run(main)
