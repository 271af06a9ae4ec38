"""Rows are tokenised as the served model reads them, and placeholders are masked from the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.checks.template import read_template_digest
from tests.unit.training.data.made import candidate
from training.base import PATH
from training.data.errors import BadTemplate
from training.data.reasons import Reason
from training.data.template import Encoded, Template
from training.data.values import Message

pytestmark = pytest.mark.slow
transformers: Any = pytest.importorskip("transformers")
tokenizers: Any = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(PATH)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(PATH)


def one(template: Template, *rows: Any) -> Encoded:
    found = template.encode(rows)[0]
    assert isinstance(found, Encoded)
    return found


def test_the_digest_is_that_of_the_served_template(template: Template) -> None:
    assert template.digest == read_template_digest(PATH)


def test_prompt_and_answer_are_cut_where_the_template_puts_the_answer(template: Template, tokenizer: Any) -> None:
    columns = one(template, candidate("kto", asked="When are you open?", answer="From 9 to 17.", label=True)).columns
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "When are you open?"}], add_generation_prompt=True
    )
    assert columns["prompt_ids"] == list(asked["input_ids"] if hasattr(asked, "keys") else asked)
    assert tokenizer.decode(columns["completion_ids"]) == "From 9 to 17.<|end|>"
    assert columns["completion_mask"] == [1] * len(columns["completion_ids"])


def test_tokens_that_touch_a_placeholder_are_not_learnt(template: Template, tokenizer: Any) -> None:
    columns = one(template, candidate("sft", answer="Write to [EMAIL] or call [PHONE] today.")).columns
    learnt = [t for t, mask in zip(columns["input_ids"], columns["completion_mask"], strict=True) if mask]
    assert tokenizer.decode(learnt).split() == ["Write", "to", "or", "call", "today.<|end|>"]


def test_a_pair_has_one_prompt_and_two_answers(template: Template, tokenizer: Any) -> None:
    found = one(template, candidate("dpo", answer="Yes, gladly.", rejected="No."))
    assert set(found.columns) == {"prompt_ids", "chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask"}
    assert tokenizer.decode(found.columns["rejected_ids"]) == "No.<|end|>"
    assert found.tokens == len(found.columns["prompt_ids"]) + len(found.columns["chosen_ids"])


def test_earlier_turns_are_learnt_where_they_are_marked(template: Template, tokenizer: Any) -> None:
    prompt = (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello there.", trained=True),
        Message(role="user", content="And?"),
        Message(role="assistant", content="Nothing.", trained=False),
        Message(role="user", content="Well?"),
    )
    columns = one(template, candidate("sft", answer="Bye.", prompt=prompt)).columns
    learnt = [t for t, mask in zip(columns["input_ids"], columns["completion_mask"], strict=True) if mask]
    assert tokenizer.decode(learnt) == "Hello there.<|end|>Bye.<|end|>"


def test_texts_and_prompts_alone_are_encoded_too(template: Template, tokenizer: Any) -> None:
    assert (
        tokenizer.decode(one(template, candidate("text", answer="Once.", prompt=())).columns["input_ids"])
        == "Once.<|end|>"
    )
    assert tokenizer.decode(one(template, candidate("rl")).columns["prompt_ids"]).endswith("Hi<|end|><|assistant|>")


def test_a_template_that_refuses_or_moves_the_answer_costs_that_row_only(template: Template) -> None:
    strict = Template(PATH)
    strict._tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    found = strict.encode([candidate("sft", asked="bad"), candidate("sft", asked="good", answer=">x")])
    assert found[0] is Reason.TEMPLATE
    assert isinstance(found[1], Encoded)
    assert strict.encode([candidate("sft", answer="y")]) == [Reason.TEMPLATE]


def test_a_tokenizer_that_begins_every_text_with_a_blank_sees_answers_behind_their_prompts(tmp_path: Path) -> None:
    letters = [("<unk>", 0.0), ("▁", -1.0), *((chr(code), -2.0) for code in range(33, 127))]
    plain = tokenizers.Tokenizer(tokenizers.models.Unigram(letters, unk_id=0))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    wrapped.chat_template = (
        "{% for m in messages %}{{ '[' + m.content + ']' if m.role == 'user' else m.content + '!' }}{% endfor %}"
    )
    wrapped.save_pretrained(tmp_path)
    found = one(Template(tmp_path), candidate("kto", asked="open?", answer="Yes.", label=True)).columns
    assert wrapped.convert_ids_to_tokens(found["prompt_ids"]) == [*"▁[open?]"]
    assert wrapped.convert_ids_to_tokens(found["completion_ids"]) == [*"Yes.!"]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTemplate):
        Template(tmp_path)
