"""TRL's trainers, taught to count: each row by its weight, each token of an answer by its mask. Heavy.

A row's weight scales the gradient that its answer sends back into the model, which is the gradient of a loss in which
the row counts that much. So it is the same for every loss that judges rows one by one, none of TRL's formulas is
copied, and the loss that is shown stays the plain one. Rows that have tokens are trained by those and not tokenized
again; where a mask is 0 the answer's token counts to no likelihood.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: By the trainer's name: columns of rows that have tokens, besides those that TRL itself asks for.
_MORE: Final[Mapping[str, tuple[str, ...]]] = {
    "SFTTrainer": ("weights",),
    "DPOTrainer": ("chosen_mask", "rejected_mask"),
    "KTOTrainer": ("completion_mask", "KL_completion_mask"),
    "RewardTrainer": (),
    "ORPOTrainer": (),
}


def counting(kind: Any) -> Any:
    """The trainer `kind`, for rows that may have weights, tokens and masks; rows without are trained as ever."""
    name = kind.__name__
    more = {
        "SFTTrainer": _packing, "DPOTrainer": _as_they_are, "KTOTrainer": _with_neighbours, "RewardTrainer": _joined,
        "ORPOTrainer": _labelled,
    }[name](kind)  # fmt: skip

    class Counting(more):  # type: ignore[misc, valid-type]
        """Hands weights and masks from the rows to the loss."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._set_signature_columns_if_needed()
            known: list[str] = list(getattr(self, "_signature_columns", ()))
            self._signature_columns = [*known, "weight", *_MORE[name]]
            if name != "ORPOTrainer":  # its collator hands on what it does not know, and its loss looks for that
                self.data_collator = _Collator(getattr(self, "data_collator"))  # noqa: B009

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """TRL's own, of a model that hears each row as loud as it counts."""
            weight = self._loudness(inputs) if name == "ORPOTrainer" else inputs.pop("weight", None)
            heard = model if weight is None else _Louder(model, weight)
            return super().compute_loss(
                heard, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )

    Counting.__name__ = Counting.__qualname__ = name
    return Counting


class _Louder:
    """A model, each row of whose answers is heard as loud as it counts: in gradients only."""

    def __init__(self, model: Any, weight: Any) -> None:
        self._model = model
        self._weight = weight

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        out = self._model(*given, **named)
        said = getattr(out, "log_probs", None)
        said = out.logits if said is None else said
        if said.requires_grad:
            said.register_hook(lambda gradient: gradient * _fitted(self._weight, gradient))
        return out


def _fitted(weight: Any, gradient: Any) -> Any:
    """Weights of rows, or of tokens, in the shape of what they are multiplied with."""
    weight = weight.to(gradient)
    if weight.dim() == 2 and weight.shape[1] == gradient.shape[1] + 1:
        weight = weight[:, 1:]  # the likelihood at a place is that of the token after it
    if gradient.shape[0] == 2 * weight.shape[0]:
        weight = weight.repeat(2, *[1] * (weight.dim() - 1))  # all chosen answers, then all rejected ones
    return weight.reshape(*weight.shape, *[1] * (gradient.dim() - weight.dim()))


class _Collator:
    """TRL's collator, and what it leaves out: weights, and masks of answers."""

    def __init__(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self._inner = inner

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        batch = self._inner(examples)
        first = examples[0]
        if "weight" in first:
            batch["weight"] = torch.tensor([each["weight"] for each in examples], dtype=torch.float32)
        elif "weights" in first:
            batch["weight"] = _by_token([each["weights"] for each in examples], batch["input_ids"])
        if "chosen_mask" in first:
            _silence(batch["completion_mask"], [(each["prompt_ids"], each["chosen_mask"]) for each in examples], 0)
            others = [(each["prompt_ids"], each["rejected_mask"]) for each in examples]
            _silence(batch["completion_mask"], others, len(examples))
        elif "completion_mask" in first:
            for before in ("", "KL_"):
                if f"{before}completion_mask" in batch and f"{before}completion_mask" in first:
                    answers = [(each["prompt_ids"], each[f"{before}completion_mask"]) for each in examples]
                    _silence(batch[f"{before}completion_mask"], answers, 0)
        return batch


def _silence(mask: Any, answers: Sequence[tuple[Sequence[int], Sequence[int]]], first: int) -> None:
    """Take out of a batch's mask, from row `first` on, the tokens of answers that do not count."""
    for row, (prompt, counts) in enumerate(answers, start=first):
        for place, one in enumerate(counts, start=len(prompt)):
            if not one and place < mask.shape[1]:
                mask[row, place] = 0


def _by_token(weights: Sequence[Sequence[float]], ids: Any) -> Any:
    """Packed rows: one weight for each token, in the shape of the batch."""
    import torch

    if ids.shape[0] != len(weights):  # all in one row, without filling
        return torch.tensor([[one for each in weights for one in each]], dtype=torch.float32)
    made = torch.zeros(ids.shape, dtype=torch.float32)
    for row, each in enumerate(weights):
        made[row, : len(each)] = torch.tensor(each, dtype=torch.float32)
    return made


def _packing(kind: Any) -> Any:
    """SFT: TRL packs tokens and labels alone, so rows with weights are packed here, with a weight for each token."""
    from trl import pack_dataset

    class Packing(kind):  # type: ignore[misc]
        """Prepares weighted rows."""

        def _prepare_dataset(
            self, dataset: Any, tokenizer: Any, args: Any, packing: bool, formatting: Any, name: str
        ) -> Any:
            if not packing or "weight" not in dataset.column_names:
                return super()._prepare_dataset(dataset, tokenizer, args, packing, formatting, name)
            whole = copy.copy(args)
            whole.max_length = None  # packing cuts, as its strategy says
            ready = super()._prepare_dataset(dataset, tokenizer, whole, False, formatting, name)
            ready = ready.map(lambda row: {"weights": [row["weight"]] * len(row["input_ids"])})
            return pack_dataset(
                ready.select_columns(["input_ids", "labels", "weights"]), args.max_length, args.packing_strategy
            )

    return Packing


def _as_they_are(kind: Any) -> Any:
    """DPO: rows that have tokens need no preparation."""

    class AsTheyAre(kind):  # type: ignore[misc]
        """Prepares rows without tokens only."""

        def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
            if "prompt_ids" in dataset.column_names:
                return dataset
            return super()._prepare_dataset(dataset, tokenizer, args, name)

    return AsTheyAre


def _with_neighbours(kind: Any) -> Any:
    """KTO: each prompt also gets its neighbour's answer, and with it that answer's mask."""

    class WithNeighbours(kind):  # type: ignore[misc]
        """Prepares rows that have tokens as TRL prepares others."""

        def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
            if "prompt_ids" not in dataset.column_names:
                return super()._prepare_dataset(dataset, tokenizer, args, name)
            if not self.calculate_KL:
                return dataset

            def neighbours(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
                pairs = (("completion_ids", "KL_completion_ids"), ("completion_mask", "KL_completion_mask"))
                return {theirs: [rows[own][-1], *rows[own][:-1]] for own, theirs in pairs}

            return dataset.map(neighbours, batched=True, batch_size=args.per_device_train_batch_size)

    return WithNeighbours


def _joined(kind: Any) -> Any:
    """Reward: question and answer are judged as one. A placeholder is judged too: nobody learns to say it by that."""

    class Joined(kind):  # type: ignore[misc]
        """Puts the prompt before both answers."""

        def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
            if "prompt_ids" in dataset.column_names:
                dataset = dataset.map(
                    lambda row: {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")},
                    remove_columns="prompt_ids",
                )
            return super()._prepare_dataset(dataset, tokenizer, args, name)

    return Joined


def _labelled(kind: Any) -> Any:
    """ORPO: masked tokens have no label; of the chosen answer's own likelihood TRL asks for all tokens, so there their
    gradient is 0."""

    class Labelled(kind):  # type: ignore[misc]
        """Prepares rows that have tokens, and says how loud each token is."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            """The columns that TRL makes of a row."""
            if "prompt_ids" not in feature:
                made: dict[str, Any] = super().tokenize_row(feature, model)
                return made
            prompt = feature["prompt_ids"]
            made = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
            for side in ("chosen", "rejected"):
                ids = feature[f"{side}_ids"]
                labels = [one if counts else -100 for one, counts in zip(ids, feature[f"{side}_mask"], strict=True)]
                made[f"{side}_input_ids"] = prompt + ids
                made[f"{side}_attention_mask"] = [1] * (len(prompt) + len(ids))
                made[f"{side}_labels"] = [-100] * len(prompt) + labels
            return made

        def _loudness(self, inputs: Any) -> Any:
            """One number for each row and token; None where all are 1. A place foretells the token after it."""
            import torch

            weights, masks = inputs.pop("weight", None), inputs.get("chosen_mask") or []
            if weights is None and all(all(each) for each in masks):
                return None
            count = len(inputs["chosen_labels"])
            width = max(inputs[f"{side}_input_ids"].shape[1] for side in ("chosen", "rejected"))
            loud = torch.ones(2 * count, width)
            if weights is not None:
                loud *= torch.tensor([*weights, *weights])[:, None]
            for row, (prompt, mask) in enumerate(zip(inputs.get("prompt_ids", ()), masks, strict=False)):
                for place, counts in enumerate(mask, start=len(prompt)):
                    if not counts:
                        loud[row, place - 1] = 0
            return loud

    return Labelled
