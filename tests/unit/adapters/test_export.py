"""A version taken out, and what happens when it comes back."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from adapters.artifacts import Artifacts, unpacked
from adapters.artifacts.pack import Entry, gzipped, tar, tar_size
from adapters.card import base_model, card
from adapters.checks.modules import BaseModules
from adapters.errors import BadExport, BadSource, DigestMismatch
from adapters.export import deliver, parcel, write_folder
from adapters.limits import Limits
from adapters.lineage import names, restored
from adapters.registry import Registry
from adapters.store import Evidence, MemoryStore, Version

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

HUB = "http://127.0.0.1:1"


class House:
    def __init__(self, root: Path, modules: BaseModules) -> None:
        self.store = MemoryStore(clock=lambda: 1_800_000_000.0)
        self.artifacts = Artifacts(root)
        self.registry = Registry(self.store, self.artifacts, modules, "sha256:base", clock=lambda: 1_800_000_000.0)

    def register(self, folder: Path, name: str = "support") -> Version:
        return self.registry.register(folder, name=name, who="kim", note="after the audit", source="folder")

    def export(self, version: Version, to: Path) -> Path:
        write_folder(parcel(self.registry, self.store, version.name, version.number), to)
        return to


@pytest.fixture
def house(tmp_path: Path, modules: BaseModules) -> House:
    return House(tmp_path / "artifacts", modules)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_holds_every_byte_of_the_version_and_a_card_and_a_lineage(
    house: House, specimens: Specimens, tmp_path: Path
) -> None:
    folder = specimens.adapter(files={"tokenizer.json": b"{}"})
    version = house.register(folder)
    out = contents(house.export(version, tmp_path / "out"))
    original = contents(folder)
    readme = original.pop("README.md")
    assert {name: out[name] for name in original} == original
    assert out["README.original.md"] == readme
    assert out.keys() - original.keys() == {"README.md", "README.original.md", "lineage.json"}
    lineage = json.loads(out["lineage.json"])
    assert (lineage["name"], lineage["number"], lineage["digest"]) == ("support", 1, version.digest)
    assert lineage["base"]["digest"] == "sha256:base"
    assert lineage["source"] == "folder"
    assert [row["action"] for row in lineage["audit"]] == ["registered", "checked"]
    assert lineage["evidence"][0]["kind"] == "static"
    assert lineage["files"]["README.original.md"]["name"] == "README.md"


def test_an_export_that_comes_back_is_the_version_that_it_was(
    house: House, specimens: Specimens, tmp_path: Path
) -> None:
    version = house.register(specimens.adapter())
    out = house.export(version, tmp_path / "out")
    (out / ".gitattributes").write_text("*.safetensors filter=lfs\n")  # what the hub adds
    with restored(out) as own:
        assert house.register(own) == version
        assert house.register(own, "elsewhere").digest == version.digest
    assert house.export(version, tmp_path / "again").joinpath("lineage.json").is_file()


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out / "adapter_config.json").write_bytes((out / "adapter_config.json").read_bytes() + b"\n"),
        lambda out: (out / "graftline.json").write_text('{"system": "new"}'),
        lambda out: (out / "README.original.md").unlink(),
        lambda out: (out / "lineage.json").write_text("{"),
        lambda out: (out / "lineage.json").write_text('{"format": "graftline-lineage/2", "files": {}}'),
        lambda out: _say(out, "digest", "sha256:" + "0" * 64),
        lambda out: _say(out, "files", {"README.md": {"name": "../escape"}}),
        lambda out: _say(out, "files", {"README.md": 3}),
        lambda out: _say(out, "files", []),
    ],
)
def test_an_export_that_was_changed_is_a_new_adapter_like_any_other(
    house: House, specimens: Specimens, tmp_path: Path, change: object
) -> None:
    out = house.export(house.register(specimens.adapter()), tmp_path / "out")
    assert callable(change)
    change(out)
    with restored(out) as own:
        assert own == out


def _say(out: Path, field: str, value: object) -> None:
    said = json.loads((out / "lineage.json").read_text())
    (out / "lineage.json").write_text(json.dumps({**said, field: value}))


def test_an_export_of_an_export_keeps_the_earlier_lineage_under_another_name(
    house: House, specimens: Specimens, tmp_path: Path
) -> None:
    out = house.export(house.register(specimens.adapter()), tmp_path / "out")
    (out / "NOTICE").write_text("changed\n")
    second = house.register(out)  # changed: all of it, our own files too, is the adapter now
    assert second.number == 2
    again = house.export(second, tmp_path / "again")
    kept = {path.name for path in again.iterdir()}
    assert {"README.original.md", "README.original.original.md", "lineage.original.json"} <= kept
    with restored(again) as own:
        assert house.register(own) == second


def test_names_step_aside_only_where_they_must() -> None:
    assert names(["a.json", "README.md"]) == {"a.json": "a.json", "README.original.md": "README.md"}


def test_bytes_that_were_changed_on_disk_are_not_taken_out(house: House, specimens: Specimens) -> None:
    version = house.register(specimens.adapter())
    path = house.artifacts.path(version.digest) / "adapter_config.json"
    path.chmod(0o644)
    path.write_text("{}")
    with pytest.raises(DigestMismatch):
        parcel(house.registry, house.store, "support", 1)


def test_an_export_never_overwrites_and_leaves_nothing_behind_when_it_fails(
    house: House, specimens: Specimens, tmp_path: Path
) -> None:
    packed = parcel(house.registry, house.store, "support", house.register(specimens.adapter()).number)
    taken = tmp_path / "taken"
    taken.mkdir()
    assert deliver(packed, str(taken), endpoint=HUB) == str(taken)  # empty: as good as new
    with pytest.raises(BadExport, match="there already"):
        deliver(packed, str(taken), endpoint=HUB)
    with pytest.raises(BadExport):
        deliver(packed, "s3://bucket/key", endpoint=HUB)
    broken = (*packed, Entry(name="gone", size=1, content=tmp_path / "missing"))
    with pytest.raises(BadExport, match="could not be written"):
        write_folder(broken, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_the_download_is_an_archive_that_registers_as_the_version_it_was(
    house: House, specimens: Specimens, tmp_path: Path
) -> None:
    version = house.register(specimens.adapter())
    packed = parcel(house.registry, house.store, version.name, version.number)
    whole = b"".join(tar(packed))
    assert len(whole) == tar_size(packed)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"".join(gzipped(tar(packed))))
    assert archive.read_bytes() == b"".join(gzipped(tar(packed)))  # the same each time
    with unpacked(archive, Limits()) as folder, restored(folder) as own:
        assert house.register(own) == version


def test_a_packed_file_of_any_length_and_name_is_read_by_others(tmp_path: Path) -> None:
    sizes = [0, 1, 511, 512, 513, (1 << 20) + 3]
    entries = []
    for i, size in enumerate(sizes):
        path = tmp_path / ("n" * 110 + f"é{i}")
        path.write_bytes(bytes([i]) * size)
        entries.append(Entry(name=path.name, size=size, content=path))
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar(entries)))) as archive:
        assert [(member.name, member.size) for member in archive] == [(e.name, e.size) for e in entries]


def test_a_file_that_shrinks_while_it_is_packed_is_an_error_and_not_a_wrong_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    with pytest.raises(BadSource, match="became shorter"):
        b"".join(tar([Entry(name="a", size=3, content=tmp_path / "a")]))


def seen(version: Version, **body: object) -> Evidence:
    return Evidence(
        name=version.name,
        number=version.number,
        kind="probe",
        at=0,
        who="worker",
        passed=True,
        subject="r|1",
        body=body,
    )


def test_the_card_says_what_it_is_what_was_seen_and_how_to_use_it(house: House, specimens: Specimens) -> None:
    version = house.register(specimens.adapter(files={"graftline.json": b'{"system": "``` Be brief."}'}))
    evil = "]|`<script>\n---\nlicense: mine"
    text = card(version, [seen(version, effect=1.25, by=evil)], {"base_model_name_or_path": "org/base"})
    _, front, rest = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "base_model": "org/base",
        "tags": ["lora", "peft", "graftline", "base_model:adapter:org/base"],
    }
    assert version.digest in rest
    assert "effect 1.25" in rest
    assert "\n---\nlicense" not in rest
    assert "r¦1" in rest
    assert 'PeftModel.from_pretrained(base, ".")' in rest
    assert "vllm serve org/base --enable-lora --max-lora-rank 8 --lora-modules support=." in rest


def test_a_path_on_somebodys_machine_is_no_base_on_the_hub(house: House, specimens: Specimens) -> None:
    version = house.register(specimens.adapter())
    assert base_model(version, {"base_model_name_or_path": "/home/kim/models/x"}) in ("", version.base_name)
    assert base_model(version, {}) in ("", version.base_name)
