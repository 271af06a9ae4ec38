from __future__ import annotations

import pytest

from gateway.engines.process import flags


def test_flags_are_written_as_vllm_reads_them() -> None:
    args = {
        "tool-call-parser": "hermes",
        "enable_auto_tool_choice": True,
        "--enable-prefix-caching": False,
        "max-num-seqs": 64,
        "cudagraph-capture-sizes": [1, 2, 4],
        "speculative_config": {"method": "ngram", "k": 3},
        "compilation-config.some_key": 1,
    }
    assert flags.render(args, device="cuda") == [
        "--compilation-config.some_key=1",
        *("--cudagraph-capture-sizes", "1", "2", "4"),
        "--enable-auto-tool-choice",
        "--no-enable-prefix-caching",
        "--max-num-seqs=64",
        '--speculative-config={"k": 3, "method": "ngram"}',
        "--tool-call-parser=hermes",
    ]


def test_no_flags_is_no_words() -> None:
    assert flags.render({}, device="cpu") == []


@pytest.mark.parametrize("name", flags.REFUSED)
def test_every_flag_of_ours_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(flags.RefusedFlags) as refused:
        flags.render({name: "x"}, device="cuda")
    assert refused.value.reasons == {name: flags.REFUSED[name]}
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "--max_loras",
        "no-enable-lora",
        "no_disable_uvicorn_access_log",
        "enable-lor",  # vLLM's parser takes a unique beginning for the whole
        "served-model",
        "lora_modules+",
        "dp",
        "-asc",
    ],
)
def test_other_spellings_of_a_flag_of_ours_are_refused_too(name: str) -> None:
    with pytest.raises(flags.RefusedFlags, match="cannot be set under"):
        flags.render({name: True}, device="cuda")


def test_all_refused_flags_are_told_together() -> None:
    with pytest.raises(flags.RefusedFlags) as refused:
        flags.render({"port": 1, "max-num-seqs": 4, "enable_dbo": True}, device="cuda")
    assert set(refused.value.reasons) == {"port", "enable_dbo"}


def test_compiling_is_a_choice_on_a_gpu_only() -> None:
    assert flags.render({"enforce-eager": False}, device="cuda") == ["--no-enforce-eager"]
    with pytest.raises(flags.RefusedFlags, match="row by row"):
        flags.render({"enforce-eager": False}, device="cpu")
