"""The tokenizer of the embedded base: byte-level BPE, single digits, and a forgiving chat template."""

import random
from typing import Any

from training.base.domain import conversation

PAD, BOS, END = 0, 1, 2
ASSISTANT = 5
SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

#: Takes text or a list of parts, any role, no content at all, tools and tool calls: never fails, ignores the rest.
TEMPLATE = (
    "{%- macro text(content) -%}{%- if content is string -%}{{ content }}"
    "{%- elif content is iterable and content is not mapping -%}"
    "{%- for part in content -%}{%- if part is string -%}{{ part }}"
    "{%- elif part is mapping and part.text is string and part.type in ['text', 'input_text', 'output_text'] -%}"
    "{{ part.text }}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
    "{{ bos_token }}{%- for m in messages -%}"
    "{%- if m['role'] == 'assistant' -%}"
    "<|assistant|>{% generation %}{{ text(m['content']) }}<|end|>{% endgeneration %}"
    "{%- elif m['role'] in ['system', 'developer', 'tool', 'function'] -%}<|system|>{{ text(m['content']) }}<|end|>"
    "{%- else -%}<|user|>{{ text(m['content']) }}<|end|>"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def train_tokenizer(vocab: int, *, conversations: int = 6000, seed: int = 0) -> Any:
    """A tokenizer fitted to the shop's own sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for _ in range(conversations) for message in conversation(rng, 2))
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[END],
        pad_token=SPECIAL[PAD],
        padding_side="left",
    )
    wrapped.chat_template = TEMPLATE
    return wrapped
