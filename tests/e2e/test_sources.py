"""Adapters from elsewhere, over real sockets: a web host, S3 as moto serves it, a hub as huggingface_hub asks it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.artifacts import digest_folder
from adapters.artifacts.pack import entries
from adapters.errors import (
    AdapterError,
    BadSource,
    SourceRefused,
    SourceUnavailable,
    TooLarge,
)
from adapters.export import deliver
from adapters.limits import Limits
from adapters.sources import SourceRules, fetched, pinned
from tests.e2e.outside import FakeHub, Repo, Shelf, fake_hub, web_host
from tests.engines import tiny_adapter

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "adapter", seed=1)


@pytest.fixture
def shelf(adapter: Path) -> Iterator[Shelf]:
    with web_host() as running:
        running.files["/adapter.tar.gz"] = packed(adapter)
        yield running


@pytest.fixture
def hub(adapter: Path) -> Iterator[FakeHub]:
    with fake_hub() as running:
        running.repos["org/name"] = Repo()
        running.repos["org/name"].commit({path.name: path.read_bytes() for path in adapter.iterdir()})
        yield running


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A bucket `models` on a server that speaks S3; where it is and who asks stands in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ours = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    import botocore.session  # type: ignore[import-untyped]

    client = botocore.session.Session().create_client("s3")
    client.create_bucket(Bucket="models")
    try:
        yield client
    finally:
        client.close()
        server.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def packed(folder: Path) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return whole.getvalue()


def refused(source: str, rules: SourceRules) -> AdapterError:
    with pytest.raises(AdapterError) as caught, fetched(pinned(source, rules), rules):
        pytest.fail("the source should have been refused")
    return caught.value


def test_an_archive_from_a_host_on_the_list_arrives_whole(shelf: Shelf, adapter: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    rules = SourceRules(hosts=(shelf.host,))
    with fetched(f"{shelf.url}/adapter.tar.gz?sig=1", rules, lambda *at: seen.append(at)) as folder:
        assert digest_folder(folder) == digest_folder(adapter)
    size = len(shelf.files["/adapter.tar.gz"])
    assert seen[-1] == (size, size)
    assert not folder.exists()


def test_a_redirect_is_followed_on_the_list_and_never_off_it(shelf: Shelf, adapter: Path) -> None:
    rules = SourceRules(hosts=(shelf.host,))
    shelf.redirects |= {"/a": "/b", "/b": f"{shelf.url}/adapter.tar.gz"}
    with fetched(f"{shelf.url}/a", rules) as folder:
        assert digest_folder(folder) == digest_folder(adapter)
    with web_host() as other:
        other.files["/adapter.tar.gz"] = packed(adapter)
        shelf.redirects["/off"] = f"{other.url}/adapter.tar.gz"
        assert isinstance(refused(f"{shelf.url}/off", rules), SourceRefused)
        assert other.asked == []
    for place in ("file:///etc/passwd", "ftp://x/", "//[bad"):
        shelf.redirects["/odd"] = place
        assert isinstance(refused(f"{shelf.url}/odd", rules), BadSource)
    shelf.redirects["/round"] = "/round"
    assert "redirected more than" in str(refused(f"{shelf.url}/round", rules))


def test_a_redirect_to_another_host_takes_no_credential_along(shelf: Shelf, adapter: Path) -> None:
    with web_host() as other:
        other.files["/adapter.tar.gz"] = packed(adapter)
        shelf.redirects["/a"] = f"{other.url}/adapter.tar.gz"
        rules = SourceRules(hosts=(shelf.host, other.host))
        with fetched(f"http://kim:secret@{shelf.host}/a", rules):
            pass
        assert "authorization" in shelf.asked[-1][1]
        assert "authorization" not in other.asked[-1][1]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/missing", BadSource),
        ("/status/403", BadSource),
        ("/status/503", SourceUnavailable),
        ("/status/429", SourceUnavailable),
        ("/packed", BadSource),
        ("/claims", TooLarge),
        ("/endless", TooLarge),
        ("/slow", SourceUnavailable),
        ("/headless", SourceUnavailable),
    ],
)
def test_a_host_that_misbehaves_is_a_typed_error(shelf: Shelf, path: str, kind: type[AdapterError]) -> None:
    rules = SourceRules(hosts=(shelf.host,), limits=Limits(bytes_max=1 << 20), timeout_s=0.5)
    error = refused(f"http://kim:secret@{shelf.host}{path}?token=hidden", rules)
    assert type(error) is kind
    assert "secret" not in str(error)
    assert "hidden" not in str(error)


def test_a_host_that_is_away_is_unavailable_and_its_url_is_not_told() -> None:
    rules = SourceRules(hosts=("127.0.0.1:1",))
    error = refused("http://kim:secret@127.0.0.1:1/a?token=hidden", rules)
    assert type(error) is SourceUnavailable
    assert error.retryable
    assert "secret" not in f"{error}{error.__cause__}"


def test_a_prefix_and_an_archive_come_from_a_bucket(s3: Any, adapter: Path) -> None:
    for path in adapter.iterdir():
        s3.put_object(Bucket="models", Key=f"team/one/{path.name}", Body=path.read_bytes())
    s3.put_object(Bucket="models", Key="team/one/", Body=b"")  # what the console makes of a folder
    s3.put_object(Bucket="models", Key="team/one.tar.gz", Body=packed(adapter))
    rules = SourceRules(buckets=("models",))
    seen: list[tuple[int, int | None]] = []
    for source in ("s3://models/team/one/", "s3://models/team/one", "s3://models/team/one.tar.gz"):
        with fetched(source, rules, lambda *at: seen.append(at)) as folder:
            assert digest_folder(folder) == digest_folder(adapter)
        assert seen[-1][0] == seen[-1][1]


def test_what_a_bucket_does_not_have_or_has_too_much_of_is_a_typed_error(s3: Any) -> None:
    rules = SourceRules(buckets=None, limits=Limits(files_max=3, bytes_max=100))
    s3.put_object(Bucket="models", Key="big/a.json", Body=b"x" * 101)
    s3.put_object(Bucket="models", Key="deep/x/a.json", Body=b"x")
    for i in range(5):
        s3.put_object(Bucket="models", Key=f"many/{i}.json", Body=b"x")
    assert isinstance(refused("s3://models/nothing", rules), BadSource)
    assert isinstance(refused("s3://models/nothing.zip", rules), BadSource)
    assert isinstance(refused("s3://nobucket/a", rules), BadSource)
    assert isinstance(refused("s3://models/deep", rules), BadSource)
    assert isinstance(refused("s3://models/big", rules), TooLarge)
    assert isinstance(refused("s3://models/many", rules), TooLarge)


def test_a_bucket_that_is_away_is_unavailable(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert type(refused("s3://models/team/one", SourceRules(buckets=None))) is SourceUnavailable


def elsewhere(source: str, hub: str = "", first: str = "", **env: str) -> list[str]:
    """What fetching raises in a process of its own: class, code, whether to try again, message."""
    code = f"""
import sys
{first}
from adapters.errors import AdapterError
from adapters.sources import SourceRules, fetched
try:
    with fetched({source!r}, SourceRules(buckets=None, hub_endpoint={hub!r})):
        pass
except AdapterError as error:
    print(type(error).__name__, error.code, error.retryable, error, sep="|")
"""
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    return done.stdout.strip().split("|")


def test_without_s3fs_the_error_names_the_extra() -> None:
    kind, code, retryable, message = elsewhere("s3://models/a", first="sys.modules['s3fs'] = None")
    assert (kind, code, retryable) == ("MissingExtra", "missing_extra", "False")
    assert "graftline[s3]" in message


def test_a_hub_revision_becomes_its_commit_and_stays_it(hub: FakeHub, adapter: Path) -> None:
    rules = SourceRules(hub_endpoint=hub.url)
    first = hub.repos["org/name"].branches["main"]
    source = pinned("hub:org/name", rules)
    assert source == f"hub:org/name@{first}"
    hub.repos["org/name"].commit({"adapter_config.json": b"{}"})  # the branch moves on meanwhile
    seen: list[tuple[int, int | None]] = []
    with fetched(source, rules, lambda *at: seen.append(at)) as folder:
        assert digest_folder(folder) == digest_folder(adapter)
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in adapter.iterdir())
    assert pinned("hub:org/name@main", rules) != source


def test_what_training_leaves_behind_and_folders_stay_on_the_hub(hub: FakeHub) -> None:
    files = {"adapter_config.json": b"{}", "training_args.bin": b"x", "checkpoint-1/a.json": b"{}", "odd.bin": b"x"}
    hub.repos["org/left"] = Repo()
    hub.repos["org/left"].commit(files)
    with fetched("hub:org/left", SourceRules(hub_endpoint=hub.url)) as folder:
        assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "odd.bin"}  # which checks refuse


def test_what_the_hub_does_not_have_or_does_not_give_is_a_typed_error(hub: FakeHub) -> None:
    rules = SourceRules(hub_endpoint=hub.url, limits=Limits(bytes_max=3 << 20))
    assert isinstance(refused("hub:org/none", rules), BadSource)
    assert isinstance(refused("hub:org/name@nothing", rules), BadSource)
    assert isinstance(refused("hub:org/name@" + "0" * 40, rules), BadSource)
    hub.repos["org/empty"] = Repo()
    hub.repos["org/empty"].commit({})
    assert isinstance(refused("hub:org/empty", rules), BadSource)
    hub.repos["org/big"] = Repo()
    hub.repos["org/big"].commit({"a.json": b"x" * (4 << 20)})
    assert isinstance(refused("hub:org/big", rules), TooLarge)
    hub.lies = True  # more comes than was announced: stopped while it comes
    hub.repos["org/liar"] = Repo()
    hub.repos["org/liar"].commit({"a.json": b"x"})
    assert isinstance(refused("hub:org/liar", rules), TooLarge)
    hub.status = 503
    assert type(refused("hub:org/name", rules)) is SourceUnavailable
    assert type(refused("hub:org/name", SourceRules(hub_endpoint="http://127.0.0.1:1"))) is SourceUnavailable


def test_a_process_that_is_told_to_stay_off_the_hub_says_so(hub: FakeHub) -> None:
    kind, code, retryable, _ = elsewhere("hub:org/name", hub.url, HF_HUB_OFFLINE="1")
    assert (kind, code, retryable) == ("HubOffline", "hub_offline", "False")
    assert hub.asked == []


def test_an_export_to_the_hub_is_private_and_comes_back_as_it_went(hub: FakeHub, adapter: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # the library draws bars
        where = deliver(entries(adapter), "hub:org/out", endpoint=hub.url)
    assert hub.repos["org/out"].private
    assert where == f"hub:org/out@{hub.repos['org/out'].branches['main']}"
    with fetched(where, SourceRules(hub_endpoint=hub.url)) as folder:
        assert digest_folder(folder) == digest_folder(adapter)
