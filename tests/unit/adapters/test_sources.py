"""What a source string means, and what is allowed. Real servers are in tests/e2e/test_sources.py."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError, BadSource, SourceRefused, SourceUnavailable, TooLarge
from adapters.limits import Limits
from adapters.sources import SourceRules, fetched, pinned, told
from adapters.sources.rules import Meter, host_allowed
from adapters.sources.spelling import Bucket, Hub, Local, Web, parse, web
from adapters.sources.web import plan

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("source", "meaning"),
    [
        ("adapters/one", Local(path=Path("adapters/one"))),
        ("/data/one.tar.gz", Local(path=Path("/data/one.tar.gz"))),
        ("file:///data/one%20two", Local(path=Path("/data/one two"))),
        ("file://localhost/data", Local(path=Path("/data"))),
        ("s3://models/team/one/", Bucket(bucket="models", key="team/one")),
        ("s3://models/one.zip", Bucket(bucket="models", key="one.zip")),
        ("hub:org/name", Hub(repo="org/name", revision="main")),
        ("hub:org/name@v1.2", Hub(repo="org/name", revision="v1.2")),
        ("hub:name@" + "a" * 40, Hub(repo="name", revision="a" * 40)),
        (
            "https://Host.Example/a.tgz",
            Web(scheme="https", host="host.example", port=443, url="https://Host.Example/a.tgz"),
        ),
        ("http://h:8080/a", Web(scheme="http", host="h", port=8080, url="http://h:8080/a")),
        ("http://[::1]/a", Web(scheme="http", host="[::1]", port=80, url="http://[::1]/a")),
    ],
)
def test_each_form_means_what_it_says(source: str, meaning: object) -> None:
    assert parse(source) == meaning


@pytest.mark.parametrize(
    "source",
    [
        "",
        "a\nb",
        "x" * 5000,
        "ftp://host/a",
        "gs://bucket/a",
        "data://x",
        "file://elsewhere/etc/passwd",
        "file://relative",
        "file:///a%0Ab",
        "s3://bucket",
        "s3://Bucket/key",
        "s3://bucket/*",
        "hub:",
        "hub:../../etc",
        "hub:a/b/c",
        "hub:org/name@../main",
        "hub:org/name@-x",
        "http:///path",
        "http://ho st/a",
        "http://host:99999/a",
        "https://host\\@evil/a",
        "https://höst/a",
    ],
)
def test_what_means_nothing_is_refused_and_says_what_would(source: str) -> None:
    with pytest.raises(BadSource):
        parse(source)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://kim:secret@host/a.tgz?X-Amz-Signature=s#f", "https://host/a.tgz"),
        ("https://host/a", "https://host/a"),
        ("hub:org/name@abc", "hub:org/name@abc"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_a_row_never_tells_what_may_be_a_credential(source: str, shown: str) -> None:
    assert told(source) == shown


@pytest.mark.parametrize(
    ("url", "hosts", "spelt_out"),
    [
        ("https://a.example/x", ("a.example",), True),
        ("https://A.Example./x", ("a.example",), True),
        ("http://a.example:8080/x", ("a.example:8080",), True),
        ("https://b.a.example/x", ("*.example",), False),
        ("http://127.0.0.1:9/x", ("127.0.0.1:9",), True),
    ],
)
def test_hosts_on_the_list(url: str, hosts: tuple[str, ...], spelt_out: bool) -> None:
    assert host_allowed(web(url), SourceRules(hosts=hosts)) is spelt_out


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://a.example/x", ()),
        ("https://a.example:8443/x", ("a.example",)),
        ("https://a.example.evil/x", ("a.example", "*.a.example")),
        ("https://evila.example/x", ("*.a.example",)),
        ("https://example/x", ("*.example",)),
        ("https://a.example@evil/x", ("a.example",)),
    ],
)
def test_hosts_that_are_not_on_the_list(url: str, hosts: tuple[str, ...]) -> None:
    with pytest.raises(SourceRefused):
        host_allowed(web(url), SourceRules(hosts=hosts))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "::1", "fe80::1%eth0",
     "fd00::1", "::ffff:10.0.0.1", "2002:0a00:0001::", "224.0.0.1", "255.255.255.255", "nonsense",
     "64:ff9b::a00:1", "64:ff9b:1::1", "::a00:1", "fec0::1"],
)  # fmt: skip
def test_a_host_that_only_a_wildcard_allows_may_not_lie_inside(address: str) -> None:
    target = web("https://a.example/x")
    with pytest.raises(SourceRefused, match="not a public one"):
        plan(target, SourceRules(hosts=("*.example",)), lambda host, port: [PUBLIC, address])
    spelt_out = plan(target, SourceRules(hosts=("a.example",)), lambda host, port: [address])
    assert spelt_out.url == target.url


def test_what_a_wildcard_allows_is_connected_to_by_the_address_that_was_looked_at() -> None:
    target = web("https://kim:pw@a.example:8443/x?q=1")
    step = plan(target, SourceRules(hosts=("*.example:8443",)), lambda host, port: [PUBLIC])
    assert step.url == f"https://kim:pw@{PUBLIC}:8443/x?q=1"
    assert step.headers == {"host": "a.example:8443"}
    assert step.extensions == {"sni_hostname": "a.example"}


@pytest.mark.parametrize("found", [[], OSError("no such host")])
def test_a_host_without_an_address_is_unavailable(found: Any) -> None:
    def resolve(host: str, port: int) -> list[str]:
        if isinstance(found, OSError):
            raise found
        return list(found)

    with pytest.raises(SourceUnavailable, match="no address"):
        plan(web("https://a.example/x"), SourceRules(hosts=("*.example",)), resolve)


def test_a_meter_stops_at_its_bytes_and_at_its_time_and_tells_how_far_it_is() -> None:
    now = [0.0]
    told_: list[tuple[int, int | None]] = []
    rules = SourceRules(limits=Limits(bytes_max=10), timeout_s=5)
    meter = Meter(rules, lambda done, total: told_.append((done, total)), total=9, clock=lambda: now[0])
    meter.count(4)
    meter.count(6)
    assert told_ == [(4, 9), (10, 9)]
    with pytest.raises(TooLarge):
        meter.count(1)
    with pytest.raises(TooLarge):
        meter.expect(11)
    slow = Meter(rules, lambda done, total: None, clock=lambda: now[0])
    now[0] = 5.1
    with pytest.raises(SourceUnavailable, match="source_timeout_s"):
        slow.count(1)


def test_a_folder_is_given_as_it_is_and_an_archive_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    anywhere = SourceRules(folders=None)
    with fetched(str(folder), anywhere) as found:
        assert found == folder
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("a.json", "{}")
    with fetched(f"file://{tmp_path}/a.zip", anywhere) as found:
        assert [path.name for path in found.iterdir()] == ["a.json"]
    assert not found.exists()
    with pytest.raises(BadSource, match="neither a folder nor an archive"), fetched(str(tmp_path / "b"), anywhere):
        pass


def test_folders_outside_the_list_look_alike_whether_they_exist_or_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/etc")
    rules = SourceRules(folders=(tmp_path / "in",))
    said = set()
    for source in ("/etc", "/nonexistent", str(tmp_path / "in/../x"), str(tmp_path / "in/link"), "relative"):
        with pytest.raises(SourceRefused) as refused, fetched(source, rules):
            pass
        said.add(str(refused.value).replace(source, "…"))
    assert len(said) == 1
    with fetched(str(tmp_path / "in"), rules) as found:
        assert found == tmp_path / "in"


@pytest.mark.parametrize("source", ["~nobody-of-this-name/x", "/" + "x" * 300, "/tmp/" + "y/" * 2000, "/dev/null/x"])
@pytest.mark.parametrize("folders", [None, ()])
def test_a_path_that_cannot_be_is_refused_in_words_and_not_a_fault(
    source: str, folders: tuple[Path, ...] | None
) -> None:
    with pytest.raises((BadSource, SourceRefused)), fetched(source, SourceRules(folders=folders)):
        pass


@pytest.mark.parametrize("source", ["s3://secret/key", "https://host.example/a"])
def test_nothing_is_asked_of_what_is_not_on_a_list(source: str) -> None:
    with pytest.raises(SourceRefused), fetched(source, SourceRules()):
        pass


def test_only_a_hub_revision_needs_pinning(tmp_path: Path) -> None:
    for source in ("/a", "s3://bucket/key", "https://host/a", "hub:org/name@" + "a" * 40):
        assert pinned(source, SourceRules()) == source


def test_an_error_names_its_field_for_the_api() -> None:
    kinds: list[type[AdapterError]] = [BadSource, SourceRefused, SourceUnavailable]
    assert {getattr(kind, "param", None) for kind in kinds} == {"source"}
