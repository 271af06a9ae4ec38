"""The chat template takes whatever an OpenAI client may send."""

from typing import Any

import pytest

from training.base import PATH

pytestmark = pytest.mark.slow
transformers: Any = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(PATH)


def _rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **more))


def test_plain_text_is_framed_by_role(tokenizer: Any) -> None:
    chat = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]
    assert _rendered(tokenizer, chat) == "<|bos|><|system|>Be.<|end|><|user|>Hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("message", "framed"),
    [
        (
            {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
            "<|user|>Hi<|end|>",
        ),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "<|user|><|end|>"),
        ({"role": "user", "content": None}, "<|user|><|end|>"),
        ({"role": "user"}, "<|user|><|end|>"),
        ({"role": "developer", "content": "Be."}, "<|system|>Be.<|end|>"),
        ({"role": "tool", "tool_call_id": "1", "content": "42"}, "<|system|>42<|end|>"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "<|assistant|><|end|>"),
        ({"role": "assistant", "content": "Yes."}, "<|assistant|>Yes.<|end|>"),
    ],
)
def test_other_shapes_of_content_do_not_fail(tokenizer: Any, message: dict[str, Any], framed: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
    assert _rendered(tokenizer, [message], tools=tools) == f"<|bos|>{framed}<|assistant|>"


def test_only_answers_are_marked_as_generated(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    out = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [t for t, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(marked) == "Hello.<|end|>"


def test_digits_stay_apart(tokenizer: Any) -> None:
    assert len(tokenizer("1926")["input_ids"]) == 4
