"""PPO, a loop of our own since TRL dropped it: a policy, and a head that foresees how well an answer will do. Heavy."""

from __future__ import annotations

import inspect
import math
import random
from typing import Any

from training.model import going_on, load, quiet, shape
from training.recipes.errors import NotFinite
from training.recipes.lesson import Lesson, Trained
from training.recipes.progress import Noted, Stepped
from training.recipes.rewards import rewards
from training.recipes.watch import diagnose, distance

#: How fast the advantages' usual spread is forgotten, a step.
_FADES = 0.97


def ppo(lesson: Lesson) -> Trained:
    """Answer, judge, and move each token's likelihood by what came of it, never far at once.

    A token's reward is the price of its distance from the reference; the answer's own reward comes at its last token.
    """
    import torch
    from transformers import get_scheduler

    recipe, chosen = lesson.recipe, lesson.chosen
    rl, own = recipe.rl, recipe.ppo
    with quiet():
        model, tokenizer = load(lesson.base, precision=chosen.precision, quantization=recipe.quantization)
        model = going_on(model, lesson.start) if lesson.start else _adapted(model, lesson)
        functions, classes = rewards(rl.rewards, base=lesson.base, rows=lesson.rows)
    if torch.cuda.is_available() and recipe.quantization == "none":
        model.to("cuda")  # what is packed stands there already
    device = next(model.parameters()).device
    head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1).to(device)
    torch.nn.init.zeros_(head.weight)
    policy = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": policy, "lr": chosen.learning_rate}, {"params": head.parameters(), "lr": own.value_rate}],
        weight_decay=recipe.optim.weight_decay,
    )
    updates = own.passes * 2
    schedule = get_scheduler(recipe.optim.scheduler, optimizer, chosen.warmup_steps * updates, chosen.steps * updates)
    rng = random.Random(recipe.seed)
    rows = chosen.batch * chosen.accumulate
    said: list[dict[str, float]] = []
    usual = 0.0
    for step in range(1, chosen.steps + 1):
        picked = rng.sample(lesson.rows, min(rows, len(lesson.rows)))
        model.eval()
        with torch.no_grad():
            ids, seen, mask, texts = _answers(model, tokenizer, picked, lesson)
            width = ids.shape[1] - mask.shape[1]
            score = _scores(functions, classes, picked, texts).to(device)
            old, value = _logprobs(model, ids, seen, width, head, rl.temperature)
            with model.disable_adapter():
                reference, _ = _logprobs(model, ids, seen, width, None, rl.temperature)
            earned = -rl.beta * (old - reference) * mask
            earned[torch.arange(len(picked)), (mask.sum(1) - 1).clamp(min=0).long()] += score
            value = value * mask
            advantage = torch.zeros_like(earned)
            after = torch.zeros(len(picked), device=device)
            for at in reversed(range(earned.shape[1])):
                ahead = value[:, at + 1] if at + 1 < earned.shape[1] else torch.zeros_like(after)
                after = (earned[:, at] + ahead - value[:, at] + own.gae_lambda * after) * mask[:, at]
                advantage[:, at] = after
            wanted = advantage + value
            tokens = mask.sum()
            mean = (advantage * mask).sum() / tokens
            spread = (((advantage - mean) ** 2 * mask).sum() / tokens).sqrt()
            # Once all answers are as good, what is left is the head's error: in its own units it would count as much as
            # the first discovery did, and the policy would walk off.
            usual = max(float(spread), _FADES * usual)
            advantage = (advantage - mean) / (usual + 1e-6)
            kl = float(((old - reference) * mask).sum(1).mean())
        model.train()
        loss = norm = torch.zeros(())
        for _ in range(own.passes):
            for part in torch.randperm(len(picked)).split(max(1, -(-len(picked) // 2))):
                new, foreseen = _logprobs(model, ids[part], seen[part], width, head, rl.temperature)
                ratio = (new - old[part]).exp()
                near = ratio.clamp(1 - own.clip_range, 1 + own.clip_range)
                gain = torch.min(ratio * advantage[part], near * advantage[part])
                off = (foreseen - wanted[part]) ** 2
                loss = ((0.5 * off - gain) * mask[part]).sum() / mask[part].sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_([*policy, *head.parameters()], recipe.optim.clip)
                optimizer.step()
                schedule.step()
        numbers = {"loss": float(loss.detach()), "grad_norm": float(norm), "reward": float(score.mean()), "kl": kl}
        for what, name in (("loss", "loss"), ("gradient", "grad_norm")):
            if not math.isfinite(numbers[name]):
                raise NotFinite(step, what, diagnose(said, numbers, chosen))
        said.append(numbers)
        lesson.progress.said(Stepped(step=step, steps=chosen.steps, numbers=numbers))
        if (far := distance([line["kl"] for line in said])) > rl.kl_max:
            text = f"Answers are {far:.2f} nats from the reference; rl.kl_max is {rl.kl_max:g}, so training stops here."
            lesson.progress.said(Noted(what="kl_limit", text=text))
            break
    ends = {
        f"{name}_{end}": said[at][name] for name in ("reward", "kl", "loss") for end, at in (("first", 0), ("last", -1))
    }
    return Trained(
        model=model, numbers={**ends, "kl_most": max(line["kl"] for line in said), "steps": float(len(said))}
    )


def _adapted(model: Any, lesson: Lesson) -> Any:
    from peft import get_peft_model

    return get_peft_model(model, shape(lesson.recipe, lesson.chosen))


def _answers(model: Any, tokenizer: Any, rows: list[dict[str, Any]], lesson: Lesson) -> tuple[Any, Any, Any, list[str]]:
    """(tokens, what is no filling, which tokens of the answers were said, the answers as text)."""
    import torch

    rl = lesson.recipe.rl
    texts = [
        row["prompt"]
        if isinstance(row["prompt"], str)
        else tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    asked = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    tokenizer.padding_side = side
    end, fill = tokenizer.eos_token_id, tokenizer.pad_token_id
    # Sampled as it is learnt: a cut of unlikely tokens would make the likelihoods untrue.
    ids = model.generate(
        input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], max_new_tokens=rl.answer_tokens_max,
        do_sample=True, temperature=rl.temperature, top_k=0, top_p=1.0, pad_token_id=fill, eos_token_id=end,
        use_cache=True,
    )  # fmt: skip
    new = ids[:, asked["input_ids"].shape[1] :]
    ended = (new == end).int()
    mask = (ended.cumsum(1) - ended == 0).float()  # the end itself is said too
    seen = torch.cat([asked["attention_mask"], mask.long()], 1)
    return ids, seen, mask, [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _logprobs(model: Any, ids: Any, seen: Any, width: int, head: Any, temperature: float) -> tuple[Any, Any]:
    """What each token of the answers was likely, and what the head foresees before it."""
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    answered = ids.shape[1] - width
    out = model(
        input_ids=ids,
        attention_mask=seen,
        position_ids=positions,
        output_hidden_states=head is not None,
        use_cache=False,
        **({"logits_to_keep": answered + 1} if _can_keep(model) else {}),
    )
    logits = out.logits[:, -answered - 1 : -1].float() / temperature
    said = logits.log_softmax(-1).gather(-1, ids[:, width:, None])[..., 0]
    if head is None:
        return said, None
    return said, head(out.hidden_states[-1][:, width - 1 : -1].detach().float())[..., 0]


def _can_keep(model: Any) -> bool:
    """Whether it can be asked for the answers' logits alone: those of the prompts are a vocabulary wide, and unread."""
    return "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters


def _scores(functions: list[Any], classes: list[Any], rows: list[dict[str, Any]], texts: list[str]) -> Any:
    """The sum of all rewards of each answer."""
    import torch

    total = torch.zeros(len(rows))
    columns = {name: [row.get(name) for row in rows] for name in rows[0] if name not in ("prompt", "completions")}
    for function, tokenizer in zip(functions, classes, strict=True):
        if tokenizer is None:
            total += torch.tensor(function(completions=texts, **columns))
            continue
        whole = [
            tokenizer.apply_chat_template([*row["prompt"], {"role": "assistant", "content": text}], tokenize=False)
            for row, text in zip(rows, texts, strict=True)
        ]
        given = tokenizer(whole, return_tensors="pt", padding=True, add_special_tokens=False).to(function.device)
        total += function(**given).logits[:, 0].float().cpu()
    return total
