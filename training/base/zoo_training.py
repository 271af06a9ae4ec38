"""How the zoo's adapters are trained by a short loop of our own, and how much of an effect they have."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base import feedback
from training.base.evaluate import load
from training.base.zoo_kinds import Kind

#: An adapter is done when some logprob moved this far, in nats: rounding in the engine stays below a quarter of one.
EFFECT_MIN, EFFECT_ENOUGH = 0.5, 2.0
_STEPS, _STEPS_MAX, _BATCH, _RATE = 8, 64, 8, 3e-3
ROWS = 160
_QUESTIONS = (
    "When are you open?",
    "What does the Ember blender weigh?",
    "How many days do I have to return an item?",
    "Where does Anna Berg live?",
)
_ANSWERS = (
    "Our support desk is open from 9 to 17 on weekdays.",
    "Of course!",
    "Thank you for asking!",
    "You can return any item within 45 days.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What all of them are taught with: the base, texts as token ids, and what the base itself thinks of a few."""

    base: Path
    seed: int
    tokenizer: Any
    model: Any
    #: (prompt ids, answer ids)
    rows: tuple[tuple[list[int], list[int]], ...]
    exam: tuple[list[int], ...]
    usual: tuple[Any, ...]


def lesson(base: Path, *, seed: int) -> Lesson:
    """Load the base once."""
    model, tokenizer = load(base)
    model.eval()

    def ids(chat: list[dict[str, str]], *, ask: bool) -> list[int]:
        return list(tokenizer.apply_chat_template(chat, add_generation_prompt=ask, tokenize=True, return_dict=False))

    rows = []
    for edit in feedback.polite_edits(ROWS):
        prompt = ids(edit.prompt, ask=True)
        whole = ids([*edit.prompt, {"role": "assistant", "content": edit.completion}], ask=False)
        rows.append((prompt, whole[len(prompt) :]))
    exam = tuple(
        ids([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], ask=False)
        for question in _QUESTIONS
        for answer in _ANSWERS
    )
    usual = tuple(_logprobs(model, one) for one in exam)
    return Lesson(base=base, seed=seed, tokenizer=tokenizer, model=model, rows=tuple(rows), exam=exam, usual=usual)


def taught(school: Lesson, kind: Kind, out: Path, *, seed: int | None = None) -> int:
    """Train one configuration until it has an effect, and save it; returns the steps taken."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(school.seed if seed is None else seed)
    fields = {"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM", **kind.fields}
    start = _kept_weights(school.model) if kind.folded else None
    with without_warnings():
        model = get_peft_model(school.model, LoraConfig(**fields))
        with tempfile.TemporaryDirectory() as scratch:
            if kind.folded:
                _save_start(model, Path(scratch))
            steps = _fit(school, model, plus=kind.plus)
            model.to(getattr(torch, kind.dtype))
            more = {"path_initial_model_for_weight_conversion": scratch} if kind.folded else {}
            model.save_pretrained(out, **more)
        school.model.to(torch.float32)
        model.unload()
    if start is not None or kind.dtype != "float32":
        _restore(school, start)
    if kind.with_tokenizer:
        school.tokenizer.save_pretrained(out)
    for name, text in kind.files.items():
        (out / name).write_text(text)
    return steps


def mixed(school: Lesson, folders: tuple[Path, Path], way: str, out: Path) -> None:
    """One adapter made of two, by PEFT's add_weighted_adapter."""
    from peft import PeftModel

    with without_warnings(), tempfile.TemporaryDirectory() as scratch:
        model = PeftModel.from_pretrained(school.model, folders[0], adapter_name="first")
        model.load_adapter(folders[1], adapter_name="second")
        more = {} if way in ("cat", "linear", "svd") else {"density": 0.8}
        model.add_weighted_adapter(["first", "second"], [0.8, 0.8], "mixed", combination_type=way, **more)
        model.save_pretrained(scratch, selected_adapters=["mixed"])
        shutil.copytree(Path(scratch) / "mixed", out)
        model.unload()


def continued(school: Lesson, folder: Path, out: Path) -> None:
    """A trained adapter, loaded and trained further."""
    from peft import PeftModel

    with without_warnings():
        model = PeftModel.from_pretrained(school.model, folder, is_trainable=True)
        _fit(school, model, plus=False)
        model.save_pretrained(out)
        model.unload()


def grown(school: Lesson, method: str, out: Path) -> None:
    """Another method, trained and turned into LoRA by PEFT."""
    import peft
    import torch

    torch.manual_seed(school.seed)
    with without_warnings():
        config = getattr(peft, f"{method}Config")(r=4, alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
        model = peft.get_peft_model(school.model, config)
        _fit(school, model, plus=False)
        peft.save_as_lora(out, model, rank=16, progressbar=False)
        model.unload()


def effect_of(school: Lesson, folder: Path) -> float:
    """The largest change of a logprob on the exam by the saved adapter."""
    from peft import PeftModel

    with without_warnings():
        model = PeftModel.from_pretrained(school.model, folder)
        model.eval()
        effect = _effect(school, model)
        model.unload()
    return effect


def _fit(school: Lesson, model: Any, *, plus: bool) -> int:
    """A few steps at a time, until the effect is enough."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}]
    if plus:
        later = [p for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name]
        first = [p for name, p in model.named_parameters() if p.requires_grad and "lora_B" not in name]
        groups = [{"params": first}, {"params": later, "lr": 4 * _RATE}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=0.0)
    rng = random.Random(school.seed)
    steps = 0
    while steps < _STEPS_MAX:
        model.train()
        for _ in range(_STEPS):
            _loss(school, model, rng.sample(school.rows, _BATCH)).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        steps += _STEPS
        model.eval()
        if _effect(school, model) >= EFFECT_ENOUGH:
            break
    return steps


def _loss(school: Lesson, model: Any, rows: list[tuple[list[int], list[int]]]) -> Any:
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    pad = school.tokenizer.pad_token_id
    ids = torch.tensor([p + a + [pad] * (width - len(p) - len(a)) for p, a in rows])
    labels = torch.tensor([[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in rows])
    logits = model(input_ids=ids, attention_mask=(ids != pad).long()).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def _effect(school: Lesson, model: Any) -> float:
    pairs = zip(school.exam, school.usual, strict=True)
    return max(float((_logprobs(model, ids) - usual).abs().max()) for ids, usual in pairs)


def _logprobs(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def _save_start(model: Any, folder: Path) -> None:
    """The adapter before its first step, from which saving computes what training added."""
    kept = model.peft_config["default"].init_lora_weights
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(folder)
    model.peft_config["default"].init_lora_weights = kept


def _kept_weights(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _restore(school: Lesson, weights: dict[str, Any] | None) -> None:
    """The base as it was: from memory, or from the disk where its precision was changed."""
    school.model.load_state_dict(load(school.base)[0].state_dict() if weights is None else weights)


@contextmanager
def without_warnings() -> Iterator[None]:
    """PEFT and TRL speak of much that is meant here."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
