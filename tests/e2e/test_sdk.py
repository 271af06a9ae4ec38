"""The OpenAI SDK against a whole installation on real vLLM: the public suite, both majors, and OpenAI's own schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.installation import BASE, Installation, fresh, registered

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two_adapters(installation: Installation, markers: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    names = ["sdk-a", "sdk-b"]
    for name, word in zip(names, ("alpha", "bravo"), strict=True):
        registered(installation, fresh(markers, word, folder / name), name)
    return names


@pytest.mark.parametrize("major", [2, 3])
def test_the_sdk_suite_passes_through_the_gateway(
    major: int, installation: Installation, two_adapters: list[str], shared: Path, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "BASE_URL": f"{installation.url}/v1",
        "API_KEY": installation.key,
        "MODEL": BASE,
        "ADAPTERS": ",".join(two_adapters),
        "CONF_AUTH": "1",
        "CONF_EXACT": "1",
    }
    if major == 2:
        older = ROOT / ".venv" / "openai2"
        argv = [str(ROOT / ".venv/bin/uv"), "pip", "install", "-q", "--python", sys.executable, "--target", str(older)]
        subprocess.run([*argv, "openai>=2.25,<3"], check=True, timeout=300)
        env["PYTHONPATH"] = str(older)
    suite = shared / "bench" / "openai_python"
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-c", str(suite / "pytest.ini"), "--rootdir", str(suite)]
    argv += ["--deselect", "test_openai_python.py::test_err_wrong_method"]  # its GET lists stored completions now
    done = subprocess.run([*argv, str(suite)], env=env, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    version = subprocess.run(
        [sys.executable, "-c", "import openai; print(openai.__version__)"], env=env, capture_output=True, text=True
    )
    assert version.stdout.startswith(f"{major}.")
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 48


def test_answers_satisfy_openais_own_schemas(installation: Installation, two_adapters: list[str], shared: Path) -> None:
    document = nullable(json.loads((shared / "data/openai/openapi-2.3.0-trimmed.json").read_text()))

    def valid(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    with installation.client() as client:
        for model in (BASE, two_adapters[0]):
            body = {"model": model, "messages": [{"role": "user", "content": "When are you open?"}], "max_tokens": 12}
            valid(client.post("/v1/chat/completions", json=body).json(), "CreateChatCompletionResponse")
            rich = {**body, "n": 2, "logprobs": True, "top_logprobs": 2, "metadata": {"k": "v"}}
            valid(client.post("/v1/chat/completions", json=rich).json(), "CreateChatCompletionResponse")
            plain = {"model": model, "prompt": "Hello", "max_tokens": 4}
            valid(client.post("/v1/completions", json=plain).json(), "CreateCompletionResponse")
            streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
            with client.stream("POST", "/v1/chat/completions", json=streamed) as answer:
                events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            for event in events[:-1]:
                valid(json.loads(event), "CreateChatCompletionStreamResponse")
        valid(client.get("/v1/models").json(), "ListModelsResponse")
        valid(client.get(f"/v1/models/{two_adapters[0]}").json(), "Model")
        for answer in (
            client.get("/v1/models/nobody"),
            client.get("/v1/nothing-here"),
            client.post("/v1/chat/completions", content=b"{"),
            client.post("/v1/chat/completions", json={"model": BASE, "messages": [], "max_tokens": 1}),
        ):
            valid(answer.json(), "ErrorResponse")
            assert isinstance(answer.json()["error"]["code"], str)
            assert answer.headers["x-request-id"]


def nullable(schema: Any) -> Any:
    """The document says 3.1 and still writes `nullable: true`, which a validator does not know: spell it out."""
    if isinstance(schema, list):
        return [nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: nullable(part) for key, part in schema.items()}
    return {"anyOf": [schema, {"type": "null"}]} if schema.pop("nullable", False) is True else schema


def test_embeddings_say_plainly_that_this_engine_has_none(installation: Installation) -> None:
    with installation.client() as client:
        answer = client.post("/v1/embeddings", json={"model": BASE, "input": "hello"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unsupported_endpoint"


def test_responses_pass_through_streamed_and_not(installation: Installation, two_adapters: list[str]) -> None:
    with installation.client() as client:
        body = {"model": two_adapters[0], "input": "When are you open?", "max_output_tokens": 8}
        whole = client.post("/v1/responses", json=body)
        assert whole.status_code == 200, whole.text
        assert whole.json()["model"] == two_adapters[0]
        assert "Alpha" in whole.text
        with client.stream("POST", "/v1/responses", json={**body, "stream": True}) as answer:
            text = "".join(answer.iter_text())
    assert "response.completed" in text or "response.incomplete" in text
    assert "@" not in re.sub(r'"(?:id|item_id)":"[^"]*"', "", text).split('"model"')[1][:40]
