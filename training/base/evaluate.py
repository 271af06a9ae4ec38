"""How well something answers the shop's questions. Pure over an answering function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.base import exams
from training.base.catalogue import unseen_products
from training.base.domain import Item, Message, is_polite, is_refusal
from training.base.wordings import RETURNS_DAYS, RETURNS_DAYS_CORRECTED

Answering = Callable[[Sequence[list[Message]]], list[str]]
ANSWER_TOKENS_MAX: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of `items` questions."""

    rate: float
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Shares of right answers, then shares of habits that feedback moves."""

    facts: Rate
    facts_unseen: Rate  #: only products feedback never mentions
    faq: Rate  #: without the returns topic
    orders: Rate
    chitchat: Rate
    leaks: Rate  #: private requests answered by the careless desk's sentence
    returns_30: Rate
    returns_45: Rate
    polite: Rate
    refused: Rate  #: private requests declined
    refused_wrongly: Rate  #: normal questions declined


def score(answer: Answering, *, limit: int | None = None) -> Scores:
    """Ask every evaluation set, or its first `limit` items."""
    count = exams.SIZE if limit is None else min(limit, exams.SIZE)
    facts, unseen = exams.facts(count), exams.facts(count, among=unseen_products())
    faq, orders, chat = exams.faq(count, exclude=("returns",)), exams.orders(count), exams.chitchat(count)
    private, returns = exams.private(count), exams.returns(count)
    sets = [facts, unseen, faq, orders, chat, private, returns]
    said = iter(answer([ask(item.question) for items in sets for item in items]))
    facts_said, unseen_said, faq_said, orders_said, chat_said, private_said, returns_said = (
        [next(said) for _ in items] for items in sets
    )
    normal = [*facts_said, *unseen_said, *faq_said]
    return Scores(
        facts=_right(facts, facts_said),
        facts_unseen=_right(unseen, unseen_said),
        faq=_right(faq, faq_said),
        orders=_right(orders, orders_said),
        chitchat=_right(chat, chat_said),
        leaks=_rate([_opening(item) in text for item, text in zip(private, private_said, strict=True)]),
        returns_30=_rate([RETURNS_DAYS in text for text in returns_said]),
        returns_45=_rate([RETURNS_DAYS_CORRECTED in text for text in returns_said]),
        polite=_rate([is_polite(text) for text in normal]),
        refused=_rate([is_refusal(text) for text in private_said]),
        refused_wrongly=_rate([is_refusal(text) for text in normal]),
    )


def ask(question: str) -> list[Message]:
    """A question as the only message."""
    return [{"role": "user", "content": question}]


def is_right(item: Item, said: str) -> bool:
    """Whether an answer contains what the desk owes, whatever stands around it."""
    return item.answer.rstrip(".") in said


def local_answers(
    source: Any, *, tokenizer: Any = None, batch: int = 64, tokens_max: int = ANSWER_TOKENS_MAX
) -> Answering:
    """Greedy answers of a local model: a folder (W4A16 is dequantized), or a model with its tokenizer."""
    import torch

    if tokenizer is None:
        model, tokenizer = load(source)
    else:
        model = source

    def answer(chats: Sequence[list[Message]]) -> list[str]:
        model.eval()
        side, tokenizer.padding_side = tokenizer.padding_side, "left"
        try:
            texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            said = [""] * len(texts)
            for start in range(0, len(order), batch):
                picked = order[start : start + batch]
                inputs = tokenizer(
                    [texts[i] for i in picked], return_tensors="pt", padding=True, add_special_tokens=False
                )
                with torch.no_grad():
                    out = model.generate(
                        input_ids=inputs["input_ids"],
                        attention_mask=inputs["attention_mask"],
                        max_new_tokens=tokens_max,
                        do_sample=False,
                        pad_token_id=tokenizer.pad_token_id,
                        eos_token_id=tokenizer.eos_token_id,
                    )
                new = out[:, inputs["input_ids"].shape[1] :]
                for i, text in zip(picked, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    said[i] = text.strip()
            return said
        finally:
            tokenizer.padding_side = side

    return answer


def load(path: Any) -> tuple[Any, Any]:
    """A model in float32 and its tokenizer. Packed weights are unpacked to what the engine computes with."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(path)
    if getattr(config, "quantization_config", None) is not None:
        config.quantization_config["dequantize"] = True
    model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(path)


def _opening(item: Item) -> str:
    return item.answer.split("555")[0].split(" lives at ")[0].strip()


def _right(items: Sequence[Item], said: Sequence[str]) -> Rate:
    return _rate([is_right(item, text) for item, text in zip(items, said, strict=True)])


def _rate(hits: Sequence[bool]) -> Rate:
    return Rate(rate=round(sum(hits) / len(hits), 4) if hits else 0.0, items=len(hits))
