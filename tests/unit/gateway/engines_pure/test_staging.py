"""Where an engine finds an adapter: before, during and after its load."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.artifacts.local import Artifacts
from adapters.errors import BadSignature, DigestMismatch
from adapters.signing import Signed
from gateway.engines.fleet.staging import Staging, memory_folder


class Yard:
    def __init__(self, folder: Path) -> None:
        self.artifacts = Artifacts(folder / "artifacts")
        self.links, self.memory = folder / "stage", folder / "memory"
        self.made = folder / "made"
        self.made.mkdir()
        (self.made / "adapter_model.safetensors").write_bytes(b"w" * 100)
        self.digest = self.artifacts.add(self.made)

    def staging(self, bytes_max: int = 1000, signatures: object = None) -> Staging:
        told: dict[str, object] = {"signatures": signatures}
        return Staging(self.artifacts, folder=self.links, memory=self.memory, bytes_max=bytes_max, **told)  # type: ignore[arg-type]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_the_engine_is_told_a_link_that_shows_memory_during_the_load_and_the_artifact_after(yard: Yard) -> None:
    staging = yard.staging()
    staged = staging.stage(yard.digest)
    link = Path(staged.path)
    assert link.parent == yard.links
    assert link.resolve().parent == yard.memory
    assert staged.in_memory
    assert (link / "adapter_model.safetensors").read_bytes() == b"w" * 100
    staging.settle([staged])
    assert link.resolve() == yard.artifacts.path(yard.digest)
    assert (link / "adapter_model.safetensors").read_bytes() == b"w" * 100
    assert list(yard.memory.iterdir()) == []


def test_two_replicas_share_a_copy_until_the_last_has_loaded(yard: Yard) -> None:
    staging = yard.staging()
    first, second = staging.stage(yard.digest), staging.stage(yard.digest)
    staging.settle([first])
    assert Path(second.path).resolve().parent == yard.memory
    staging.settle([second])
    assert list(yard.memory.iterdir()) == []


def test_what_does_not_fit_is_read_where_it_is(yard: Yard) -> None:
    staged = yard.staging(bytes_max=99).stage(yard.digest)
    assert not staged.in_memory
    assert Path(staged.path).resolve() == yard.artifacts.path(yard.digest)


def test_without_staging_the_engine_is_told_the_artifact_itself(yard: Yard) -> None:
    staging = yard.staging(bytes_max=0)
    staged = staging.stage(yard.digest)
    assert staged.path == str(yard.artifacts.path(yard.digest))
    staging.settle([staged])
    staging.sweep()
    assert not yard.links.exists()


@pytest.mark.parametrize("bytes_max", [0, 1, 1000])
def test_changed_bytes_are_never_laid_ready(yard: Yard, bytes_max: int) -> None:
    path = yard.artifacts.path(yard.digest) / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"x" * 100)
    with pytest.raises(DigestMismatch):
        yard.staging(bytes_max=bytes_max).stage(yard.digest)
    assert not yard.memory.exists() or list(yard.memory.iterdir()) == []


def test_the_signature_of_what_will_be_loaded_is_checked(yard: Yard) -> None:
    seen: list[Path] = []

    class Theirs:
        def verify(self, folder: Path) -> Signed | None:
            seen.append(folder)
            raise BadSignature("not by us")

    found = yard.staging(signatures=Theirs()).stage_all([yard.digest])
    assert isinstance(found[0], BadSignature)
    assert seen[0].parent == yard.memory


def test_what_a_dead_worker_left_is_swept_and_its_links_lead_to_the_artifacts(yard: Yard) -> None:
    left = yard.staging().stage(yard.digest)
    gone = yard.links / ("0" * 64)
    gone.symlink_to("/nowhere")
    yard.staging().sweep()
    assert Path(left.path).resolve() == yard.artifacts.path(yard.digest)
    assert not yard.memory.exists()
    assert not gone.is_symlink()


def test_an_installation_has_a_folder_in_memory_of_its_own(tmp_path: Path) -> None:
    found = memory_folder(tmp_path / "a")
    if found is None:
        pytest.skip("this system has no /dev/shm")
    assert found.parent == Path("/dev/shm")
    assert found != memory_folder(tmp_path / "b")
