"""Rows as the served model reads them: the base's own chat template and tokenizer. transformers is imported here only.

Columns have the names that TRL gives to what it has tokenised. A mask is 1 where the loss counts: on the answer and its
end mark, but never on a redaction placeholder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.checks.template import read_template_digest
from training.data.errors import BadTemplate, NoExtra
from training.data.masks import spans
from training.data.reasons import Reason
from training.data.values import PAIRED, Candidate, Message

Chat = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Token columns by name, and the length of the longest sequence that a trainer will see."""

    columns: dict[str, list[int]]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """One answer to one prompt, as tokens."""

    prompt: list[int]
    answer: list[int]
    mask: list[int]

    @property
    def size(self) -> int:
        return len(self.prompt) + len(self.answer)


class Template:
    """A folder's tokenizer and chat template. Raises BadTemplate, and NoExtra where transformers is missing."""

    def __init__(self, folder: Path) -> None:
        try:
            from jinja2 import TemplateError
            from transformers import AutoTokenizer
        except ImportError as problem:
            raise NoExtra("transformers") from problem
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, LookupError, TypeError) as problem:
            first = str(problem).strip().split("\n", 1)[0]
            raise BadTemplate(f"{folder} has no tokenizer that can be read: {first}") from problem
        if not tokenizer.chat_template:
            raise BadTemplate(f"{folder} has no chat template; rows cannot be written as the model is asked.")
        self.digest = read_template_digest(folder)
        self._tokenizer = tokenizer
        self._refused: type[Exception] = TemplateError
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self._apart = self._may_be_apart()

    def encode(self, candidates: Sequence[Candidate]) -> list[Encoded | Reason]:
        """The tokens of each candidate, or why it has none."""
        if candidates and candidates[0].kind == "text":
            texts = self._backend.encode_batch([each.answer for each in candidates], add_special_tokens=False)
            return [self._whole(each, found) for each, found in zip(candidates, texts, strict=True)]
        prompts = self._rendered([_chat(each.prompt) for each in candidates], ask=True)
        if candidates and candidates[0].kind == "rl":
            asked = zip(prompts, self._tokens(prompts), strict=True)
            return [
                each if isinstance(each, Reason) else Encoded(columns={"prompt_ids": ids}, tokens=len(ids))
                for each, ids in asked
            ]
        tokens = self._tokens(prompts) if self._apart else [[] for _ in prompts]
        answers = self._answers(candidates, prompts, tokens, [each.answer for each in candidates])
        if candidates and candidates[0].kind in PAIRED:
            worse = self._answers(candidates, prompts, tokens, [each.rejected for each in candidates])
            return [_pair(one, other) for one, other in zip(answers, worse, strict=True)]
        return [
            found if isinstance(found, Reason) else self._single(each, found)
            for each, found in zip(candidates, answers, strict=True)
        ]

    def _whole(self, candidate: Candidate, found: Any) -> Encoded:
        mask = [1] * len(found.ids)
        _blank(mask, found, candidate.answer, candidate.answer, since=0, less=0)
        ids = found.ids + self._end
        return Encoded(columns={"input_ids": ids, "completion_mask": mask + [1] * len(self._end)}, tokens=len(ids))

    def _tokens(self, texts: Sequence[str | Reason]) -> list[list[int]]:
        """The tokens of each text; none where there is a reason instead."""
        # Without places in the text, which nobody asks for here and which cost a third of the time.
        done = iter(
            self._backend.encode_batch_fast([each for each in texts if isinstance(each, str)], add_special_tokens=False)
        )
        return [[] if isinstance(each, Reason) else next(done).ids for each in texts]

    def _answers(
        self,
        candidates: Sequence[Candidate],
        prompts: Sequence[str | Reason],
        tokens: Sequence[list[int]],
        answers: Sequence[str],
    ) -> list[_Answer | Reason]:
        said = [[*_chat(each.prompt), _turn(answer)] for each, answer in zip(candidates, answers, strict=True)]
        good = [
            (prompt, ids, whole, answer)
            if isinstance(prompt, str) and isinstance(whole, str) and whole.startswith(prompt) and whole != prompt
            else None
            for prompt, ids, whole, answer in zip(
                prompts, tokens, self._rendered(said, ask=False), answers, strict=True
            )
        ]
        if self._apart:
            encodings = self._rests([(whole[len(prompt) :], answer) for prompt, _, whole, answer in filter(None, good)])
        else:
            encodings = iter(self._backend.encode_batch([each[2] for each in good if each], add_special_tokens=False))
        found: list[_Answer | Reason] = []
        for each in good:
            if each is None:
                found.append(Reason.TEMPLATE)
                continue
            prompt, ids, whole, answer = each
            encoding = next(encodings)
            if self._apart:
                found.append(_following(ids, encoding, whole[len(prompt) :], answer))
            else:
                found.append(self._cut(encoding, prompt, whole, answer))
        return found

    def _rests(self, texts: Sequence[tuple[str, str]]) -> Iterator[Any]:
        """Encodings of what follows the prompts, with places in the text only where an answer has a placeholder."""
        placed = [bool(spans(answer)) for _, answer in texts]
        found = {}
        for wanted, encode in ((True, self._backend.encode_batch), (False, self._backend.encode_batch_fast)):
            some = [rest for (rest, _), has in zip(texts, placed, strict=True) if has is wanted]
            found[wanted] = iter(encode(some, add_special_tokens=False))
        return (next(found[each]) for each in placed)

    def _cut(self, encoding: Any, prompt: str, whole: str, answer: str) -> _Answer | Reason:
        """Prompt and answer apart. Where a token stands across, as the server would: it sees the prompt alone."""
        cut = encoding.char_to_token(len(prompt))
        if cut is not None and encoding.token_to_chars(cut)[0] == len(prompt):
            ids = encoding.ids
            mask = [1] * (len(ids) - cut)
            _blank(mask, encoding, whole, answer, since=len(prompt), less=cut)
            return _Answer(prompt=ids[:cut], answer=ids[cut:], mask=mask)
        first = self._backend.encode(prompt, add_special_tokens=False)
        rest = self._backend.encode(whole[len(prompt) :], add_special_tokens=False)
        return _following(first.ids, rest, whole[len(prompt) :], answer)

    def _may_be_apart(self) -> bool:
        """Whether an answer has the same tokens by itself as behind its prompt: some tokenizers put a blank before
        whatever begins a text."""
        ours = [Message(role="user", content="Is it open?"), Message(role="assistant", content="Yes, until nine.")]
        found = self._turn(ours)
        if isinstance(found, Reason):
            return False
        (prompt,), (whole,) = self._rendered([_chat(ours[:1])], ask=True), self._rendered([_chat(ours)], ask=False)
        alone = self._backend.encode(str(whole)[len(str(prompt)) :], add_special_tokens=False)
        return bool(alone.ids == found.answer)

    def _single(self, candidate: Candidate, found: _Answer) -> Encoded | Reason:
        if candidate.kind == "kto":
            columns = {"prompt_ids": found.prompt, "completion_ids": found.answer, "completion_mask": found.mask}
            return Encoded(columns=columns, tokens=found.size)
        before = [0] * len(found.prompt)
        for place, each in enumerate(candidate.prompt):
            if each.trained:
                earlier = self._turn(candidate.prompt[: place + 1])
                if isinstance(earlier, Reason) or found.prompt[: len(earlier.prompt)] != earlier.prompt:
                    return Reason.TEMPLATE
                end = min(len(earlier.prompt) + len(earlier.mask), len(before))
                before[len(earlier.prompt) : end] = earlier.mask[: end - len(earlier.prompt)]
        columns = {"input_ids": found.prompt + found.answer, "completion_mask": before + found.mask}
        return Encoded(columns=columns, tokens=found.size)

    def _turn(self, said: Sequence[Message]) -> _Answer | Reason:
        """The last of these turns as an answer to the others."""
        prompt, whole = (self._rendered([_chat(part)], ask=ask)[0] for part, ask in ((said[:-1], True), (said, False)))
        if isinstance(prompt, Reason) or isinstance(whole, Reason) or not whole.startswith(prompt):
            return Reason.TEMPLATE
        encoding = self._backend.encode(whole, add_special_tokens=False)
        return self._cut(encoding, prompt, whole, said[-1].content)

    def _rendered(self, chats: Sequence[Chat], *, ask: bool) -> list[str | Reason]:
        if not chats:
            return []
        try:
            done: list[str | Reason] = self._tokenizer.apply_chat_template(
                list(chats), tokenize=False, add_generation_prompt=ask
            )
        except (self._refused, ValueError, TypeError, LookupError):
            if len(chats) == 1:
                return [Reason.TEMPLATE]
            return [each for chat in chats for each in self._rendered([chat], ask=ask)]
        return done


def _following(prompt: list[int], encoding: Any, rest: str, answer: str) -> _Answer | Reason:
    """An answer that was encoded by itself, as the server does: it goes on from the prompt's tokens."""
    mask = [1] * len(encoding.ids)
    _blank(mask, encoding, rest, answer, since=0, less=0)
    return _Answer(prompt=prompt, answer=encoding.ids, mask=mask) if mask else Reason.TEMPLATE


def _pair(one: _Answer | Reason, other: _Answer | Reason) -> Encoded | Reason:
    if isinstance(one, Reason):
        return one
    if isinstance(other, Reason):
        return other
    if one.prompt != other.prompt:
        return Reason.TEMPLATE
    columns = {
        "prompt_ids": one.prompt,
        "chosen_ids": one.answer,
        "rejected_ids": other.answer,
        "chosen_mask": one.mask,
        "rejected_mask": other.mask,
    }
    return Encoded(columns=columns, tokens=max(one.size, other.size))


def _blank(mask: list[int], encoding: Any, whole: str, answer: str, *, since: int, less: int) -> None:
    """No loss where a token touches a placeholder. A template may strip an answer, but writes it in one piece."""
    found = spans(answer)
    if not found:
        return
    stripped = answer.strip()
    at = whole.find(stripped, since) - answer.find(stripped)
    for start, end in found:
        tokens = [encoding.char_to_token(at + place) for place in range(start, end)]
        for token in {each for each in tokens if each is not None}:
            mask[token - less] = 0


def _chat(said: Sequence[Message]) -> Chat:
    return [{"role": each.role, "content": each.content} for each in said]


def _turn(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}
