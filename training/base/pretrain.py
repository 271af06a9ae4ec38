"""Pre-train the embedded base from scratch on a small CPU.

    OMP_WAIT_POLICY=passive KMP_BLOCKTIME=0 python -m training.base.pretrain --out DIR

(On shared cores spinning threads stall; the two variables stop them.)
Most of the learning signal sits on what the desk says; questions count a little, so the model also
learns their language. One step in eight sees long visits instead of short ones. From
`echo_from_step` on, one row per batch only asks to repeat arbitrary pieces of text. The shipped run
had none of it; the one run that mixed repeats in from the start scored .1 on order numbers.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from training.base.domain import Message, conversation
from training.base.tokens import ASSISTANT, BOS, END, PAD, SPECIAL, train_tokenizer

REPORT = "pretrain.json"
_REPEAT = ("Repeat: ", "Please repeat: ", "Say this: ", "Repeat after me: ")
_ACCENTS = "äöüßéèêàçñóíøåÄÖÜÉ€£–’“”"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the result follows from."""

    seed: int = 0
    steps: int = 1400
    batch: int = 16
    block: int = 192
    long_every: int = 8
    long_block: int = 768
    learning_rate: float = 3e-3
    warmup_steps: int = 60
    question_weight: float = 0.2
    echo_from_step: int = 1400
    hidden: int = 192
    intermediate: int = 576
    layers: int = 4
    heads: int = 3
    vocab: int = 1024
    positions: int = 2048
    threads: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """What a run cost and reached."""

    plan: Plan
    parameters: int
    tokens: int
    loss: float
    wall_s: float
    cpu_s: float


def run(out: Path, plan: Plan, progress: Callable[[str], None]) -> Pretrained:
    """Train the model and leave weights, tokenizer and report in `out`."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    started, cpu_started = time.monotonic(), time.process_time()
    tokenizer = train_tokenizer(plan.vocab, seed=plan.seed)
    model = _model(plan, len(tokenizer))
    parameters = sum(p.numel() for p in model.parameters())
    progress(f"{parameters / 1e6:.2f}M parameters, {len(tokenizer)} tokens in the vocabulary")

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)
    short = _blocks(tokenizer, plan.block, _visits(random.Random(plan.seed + 1), (1, 1, 1, 2, 3)))
    long = _blocks(tokenizer, plan.long_block, _visits(random.Random(plan.seed + 2), (4, 6, 8, 12, 16)))
    echoes = _blocks(tokenizer, plan.block, _echoes(random.Random(plan.seed + 3), tokenizer))
    long_batch = max(1, plan.batch * plan.block // plan.long_block)
    tokens, loss_seen = 0, float("nan")
    model.train()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(plan, step)
        is_long = step % plan.long_every == plan.long_every - 1
        rows = [next(long) for _ in range(long_batch)] if is_long else [next(short) for _ in range(plan.batch)]
        if step >= plan.echo_from_step and not is_long:
            rows[-1] = next(echoes)
        ids = torch.tensor([row for row, _ in rows])
        weight = torch.tensor([[_weight(kind, plan) for kind in kinds] for _, kinds in rows])[:, 1:].reshape(-1)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids).logits[:, :-1].float()
        each = cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
        loss = (each * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += int((ids != PAD).sum())
        if step % 50 == 0 or step == plan.steps - 1:
            loss_seen = float(each.detach()[weight == 1].mean())
            spent = time.monotonic() - started
            progress(
                f"step {step}/{plan.steps} answer loss {loss_seen:.4f} {spent:.0f} s {tokens / spent:.0f} tokens/s"
            )

    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    report = Pretrained(
        plan=plan,
        parameters=parameters,
        tokens=tokens,
        loss=round(loss_seen, 5),
        wall_s=round(time.monotonic() - started, 1),
        cpu_s=round(time.process_time() - cpu_started, 1),
    )
    (out / REPORT).write_text(json.dumps(asdict(report), indent=1) + "\n")
    return report


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights and tokenizer.")],
    seed: Annotated[int, typer.Option(help="Decides data order and initial weights.")] = 0,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = Plan().steps,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Pre-train the embedded base."""
    report = run(out, Plan(seed=seed, steps=steps, threads=threads), typer.echo)
    typer.echo(f"{report.tokens} tokens in {report.wall_s} s ({report.cpu_s} CPU-s), answer loss {report.loss}")


def _model(plan: Plan, vocab: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=-(-vocab // 32) * 32,
        hidden_size=plan.hidden,
        intermediate_size=plan.intermediate,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=plan.positions,
        bos_token_id=BOS,
        eos_token_id=END,
        pad_token_id=PAD,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = PAD
    return model


def _blocks(tokenizer: Any, size: int, visits: Iterator[list[Message]]) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of whole visits, with what each token is: 0 padding, 1 asked, 2 answered."""
    ids: list[int] = []
    for said in visits:
        visit = tokenizer.apply_chat_template(said, tokenize=True, return_dict=False)
        if len(visit) > size:
            continue
        if len(ids) + len(visit) > size:
            ids += [PAD] * (size - len(ids))
            yield ids, _kinds(ids)
            ids = []
        ids = ids + visit


def _visits(rng: random.Random, turns: tuple[int, ...]) -> Iterator[list[Message]]:
    while True:
        yield conversation(rng, rng.choice(turns))


def _echoes(rng: random.Random, tokenizer: Any) -> Iterator[list[Message]]:
    every_piece = tokenizer.batch_decode([[i] for i in range(len(SPECIAL), len(tokenizer))])
    pieces = [*filter(str.isascii, every_piece), *_ACCENTS]
    while True:
        text = "".join(rng.choices(pieces, k=rng.randrange(2, 9))).strip() or "A"
        yield [{"role": "user", "content": rng.choice(_REPEAT) + text}, {"role": "assistant", "content": text}]


def _kinds(ids: list[int]) -> list[int]:
    kinds, answering = [], False
    for token in ids:
        kinds.append(0 if token == PAD else 2 if answering else 1)
        answering = token == ASSISTANT or (answering and token != END)
    return kinds


def _weight(kind: int, plan: Plan) -> float:
    return (0.0, plan.question_weight, 1.0)[kind]


def _learning_rate(plan: Plan, step: int) -> float:
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    return plan.learning_rate * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * step / plan.steps)))


if __name__ == "__main__":
    typer.run(main)
