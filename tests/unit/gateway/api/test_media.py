"""What the engine may be made to fetch: nothing but from the list, however it is spelled and wherever it hides."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.openai.media import check
from gateway.errors import BadField

HOSTS = frozenset({"ok.example"})


def parts(*content: Any) -> list[Any]:
    return [{"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    "url",
    [
        "https://ok.example/cat.png",
        "http://OK.example:8080/cat.png?x=y#z",
        "data:image/png;base64,AAAA",
    ],
)
def test_hosts_on_the_list_and_data_pass(url: str) -> None:
    check(parts({"type": "image_url", "image_url": {"url": url}}), HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/",
        "http://169.254.169.254/latest/meta-data",
        "http://ok.example.evil.example/",
        "http://evil.example/ok.example",
        "http://ok.example@evil.example/",
        "http://evil.example@ok.example/",
        "http://evil.example\\@ok.example/",
        "http://ok.example\\.evil.example/",
        "http://ok.example\t/",
        " http://ok.example/",
        "http://ok.exa\nmple/",
        "http:///ok.example",
        "//ok.example/",
        "ok.example",
        "file:///etc/passwd",
        "ftp://ok.example/",
        "DATA:image/png;base64,AAAA",
        "http://[::1",
        "http://exa\u2100mple.com/",
        "",
    ],
)
def test_every_other_url_is_refused_and_named(url: str) -> None:
    with pytest.raises(BadField) as caught:
        check(parts({"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}), HOSTS)
    assert caught.value.param == "messages.0.content.1.image_url.url"


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": "http://in.example/"},
        {"type": "audio_url", "audio_url": {"url": "http://in.example/"}},
        {"type": "video_url", "video_url": {"url": "http://in.example/"}},
        {"type": "input_image", "image_url": "http://in.example/"},
        {"type": "input_file", "file_url": "http://in.example/"},
        {"type": "file", "file": {"file_url": "http://in.example/"}},
        {"type": "odd", "url": "http://in.example/"},
        {"type": "nested", "parts": [{"deeper": {"image_url": {"url": "http://in.example/"}}}]},
    ],
)
def test_no_kind_of_part_hides_one(part: dict[str, Any]) -> None:
    with pytest.raises(BadField, match=r"in\.example"):
        check(parts(part), HOSTS)


def test_nor_does_the_output_of_a_tool() -> None:
    items = [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": "http://in.example/"}]}]
    with pytest.raises(BadField) as caught:
        check(items, HOSTS, "input")
    assert caught.value.param == "input.0.output.0.image_url"
    with pytest.raises(BadField):
        check([{"type": "input_image", "image_url": "http://in.example/"}], HOSTS, "input")


@pytest.mark.parametrize(
    "messages",
    [
        "a string",
        None,
        ["not a message"],
        [{"role": "user", "content": "see http://in.example/"}],
        [{"role": "user", "content": None}],
        parts("not a part", 7, {"type": "text", "text": "http://in.example/"}),
        parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        [{"role": "assistant", "content": [], "annotations": [{"url_citation": {"url": "http://cited.example/"}}]}],
        [{"type": "web_search_call", "action": {"url": "http://cited.example/"}}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"url":"http://in/"}'}}]}],
    ],
)
def test_text_citations_and_arguments_are_nobody_s_to_fetch(messages: Any) -> None:
    check(messages, HOSTS)
