"""An exported version is a plain PEFT adapter: PEFT loads it, with the weights that were registered."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adapters.artifacts import Artifacts
from adapters.checks.modules import BaseModules
from adapters.export import parcel, write_folder
from adapters.registry import Registry
from adapters.store import MemoryStore
from tests.engines import tiny_adapter
from training.base import PATH as BASE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_peft_loads_an_export_with_the_registered_weights(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import transformers

    folder = tiny_adapter(tmp_path / "adapter", seed=1)
    store = MemoryStore()
    registry = Registry(store, Artifacts(tmp_path / "artifacts"), BaseModules.read(BASE), "sha256:base")
    version = registry.register(folder, name="support", who="kim")
    write_folder(parcel(registry, store, version.name, version.number), tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(BASE)
    del config.quantization_config  # random weights will do: only the adapter's are looked at
    base = transformers.AutoModelForCausalLM.from_config(config)
    loaded = peft.get_peft_model_state_dict(peft.PeftModel.from_pretrained(base, tmp_path / "out"))
    wanted = load_file(folder / "adapter_model.safetensors")
    assert loaded.keys() == wanted.keys()
    assert all((loaded[name].numpy() == wanted[name]).all() for name in wanted)
