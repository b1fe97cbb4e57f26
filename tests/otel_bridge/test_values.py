"""JSON values stay valid, bounded and readable, whatever they are made from."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import subprocess
import sys
import timeit
import uuid
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ChatMessageUser, ModelUsage
from pydantic import BaseModel

from otel_bridge.values import (
    clean_text,
    media_bytes,
    media_summary,
    media_type,
    plain,
    strip_media,
    to_json,
)

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + bytes(range(256))
PNG_64 = base64.b64encode(PNG).decode()
PNG_URI = f"data:image/png;base64,{PNG_64}"
PNG_TEXT = f"[image/png, {len(PNG)} bytes, sha256 {hashlib.sha256(PNG).hexdigest()[:16]}]"

ANY = 1 << 40

text = st.text(st.characters(codec=None, categories=None), max_size=60)
"""Text with any code point, lone surrogates included."""

odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**70)
    | st.floats()
    | text
    | st.binary(max_size=40)
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.decimals()
    | st.frozensets(st.integers() | text, max_size=4),
    lambda items: (
        st.lists(items, max_size=6)
        | st.tuples(items, items)
        | st.dictionaries(text | st.integers() | st.none() | st.floats() | st.binary(), items)
        | items.map(lambda item: deque([item]))
    ),
    max_leaves=30,
)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Settings(BaseModel):
    name: str
    limit: float | None = None
    when: dt.datetime | None = None
    anything: Any = None


@dataclasses.dataclass
class Point:
    x: float
    label: str = "p"
    next: Any = None


class Hostile:
    """Raises wherever it is touched."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


class HostileDict(dict[str, Any]):
    def items(self) -> Any:
        raise KeyError("no items")


class Masked:
    @property
    def __class__(self) -> Any:
        raise OSError("no class")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise OSError("no class")


def size(value: str) -> int:
    return len(value.encode())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
        ([math.nan, math.inf, -math.inf], '["NaN","Infinity","-Infinity"]'),
        ({math.nan: 1}, '{"NaN":1}'),
        ("a\ud800b", '"a\ufffdb"'),
        ({"k\udc00": "\ud83d\ude00"}, '{"k\ufffd":"😀"}'),
        (2**64, "18446744073709551616"),
        ([10**5000], f'["{hex(10**5000)}"]'),
        ({1: "a", None: "b", False: "c"}, '{"1":"a","null":"b","false":"c"}'),
        ({"1": "a", 1: "b", (0,): "c"}, '{"1":"a","1′":"b","[0]":"c"}'),
        (Settings(name="n", limit=math.nan), None),
        (Point(1.0), '{"x":1.0,"label":"p","next":null}'),
        ([Colour.RED, Level.HIGH], '["red",3]'),
        (dt.datetime(2024, 5, 1, tzinfo=dt.timezone.utc), '"2024-05-01T00:00:00+00:00"'),
        (dt.timedelta(minutes=1), "60.0"),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ([Decimal("1.10"), PurePosixPath("/a/b")], '["1.10","/a/b"]'),
        ({"b", "a", "c"}, '["a","b","c"]'),
        ((1, deque([2]), frozenset([3])), "[1,[2],[3]]"),
        (OrderedDict(a=defaultdict(list, b=[1])), '{"a":{"b":[1]}}'),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        (b"text", '"text"'),
        (range(2), '"range(0, 2)"'),
    ],
)
def test_to_json_of_what_json_has_no_word_for(value: Any, expected: str | None) -> None:
    result = to_json(value, ANY)
    json.loads(result)
    if expected is not None:
        assert result == expected


def test_bytes_that_are_no_text_are_summed_up() -> None:
    data = b"\xff\x00binary"
    digest = hashlib.sha256(data).hexdigest()[:16]
    assert to_json(data, ANY) == f'"[application/octet-stream, 8 bytes, sha256 {digest}]"'


def test_models_keep_their_fields() -> None:
    when = dt.datetime(2024, 5, 1, tzinfo=dt.timezone.utc)
    value = json.loads(to_json({"s": Settings(name="n", limit=math.inf, when=when)}, ANY))
    assert value["s"]["name"] == "n"
    assert value["s"]["when"].startswith("2024-05-01T00:00:00")
    assert json.loads(to_json(ModelUsage(input_tokens=3), ANY))["input_tokens"] == 3
    # a field that pydantic cannot serialize costs that field only
    odd = json.loads(to_json(Settings(name="n", anything=Hostile()), ANY))
    assert odd["name"] == "n"
    assert "Hostile" in odd["anything"]


def test_hostile_objects_cost_only_themselves() -> None:
    value = {"ok": 1, "bad": Hostile(), "items": HostileDict(a=1), "masked": [Masked(), 2]}
    result = json.loads(to_json(value, ANY))
    assert result["ok"] == 1
    assert "Hostile" in result["bad"]
    assert "HostileDict" in result["items"]
    assert result["masked"][1] == 2


def test_reprs_have_no_addresses() -> None:
    assert to_json(object(), ANY) == '"<object object>"'


def test_cycles_end() -> None:
    ring: dict[str, Any] = {"a": 1}
    ring["self"] = ring
    assert json.loads(to_json(ring, ANY)) == {"a": 1, "self": "…[circular reference]"}
    point = Point(1.0)
    point.next = [point, point]
    assert json.loads(to_json(point, ANY))["next"] == ["…[circular reference]"] * 2
    both: list[Any] = []
    both += [both, both]
    assert strip_media(both) == ["…[circular reference]"] * 2


@pytest.mark.parametrize("depth", [50, 150, 5000])
@pytest.mark.parametrize("branch", [False, True])
def test_nesting_ends(depth: int, branch: bool) -> None:
    value: Any = "leaf"
    for _ in range(depth):
        value = [0, value, 1] if branch else {"a": value}
    result = to_json(value, ANY)
    json.loads(result)
    assert ("leaf" in result) == (depth == 50)
    assert ("nested deeper than 100 levels" in result) == (depth > 100)
    assert isinstance(strip_media(value), list if branch else dict)


def test_many_brackets_are_not_depth() -> None:
    value = {"rows": [{"i": [i]} for i in range(500)], "code": "{" * 500}
    assert json.loads(to_json(value, ANY)) == value


def test_a_generator_is_not_consumed() -> None:
    numbers = (i for i in range(3))
    to_json({"g": numbers}, ANY)
    assert list(numbers) == [0, 1, 2]


@settings(max_examples=300, deadline=None)
@given(odd_values, st.integers(min_value=64, max_value=2000))
def test_to_json_never_raises_and_is_bounded(value: Any, max_bytes: int) -> None:
    whole = to_json(value, ANY)
    json.loads(whole)
    bounded = to_json(value, max_bytes)
    json.loads(bounded)
    assert size(bounded) <= max_bytes
    if size(whole) <= max_bytes:
        assert bounded == whole


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda items: st.lists(items) | st.dictionaries(st.text(), items),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(to_json(value, ANY)) == value
    assert plain(value) == value
    assert json.loads(to_json(plain(value), ANY)) == value


@given(odd_values)
def test_plain_is_what_the_json_says(value: Any) -> None:
    assert json.loads(to_json(plain(value), ANY)) == json.loads(json.dumps(plain(value)))


# --- shortening ---------------------------------------------------------------------------------


def test_the_longest_string_is_cut_and_says_by_how_much() -> None:
    value = {"role": "tool", "parts": [{"type": "text", "content": "x" * 5000}], "id": "c1"}
    result = to_json(value, 1000)
    assert 950 <= size(result) <= 1000
    cut = json.loads(result)
    assert cut["role"] == "tool"
    assert cut["id"] == "c1"
    content = cut["parts"][0]["content"]
    kept = content.index("…")
    assert content == "x" * kept + f"…[{5000 - kept} bytes cut]"


@pytest.mark.parametrize("character", ["a", "é", "😀", "\n", "\x00", '"', "\\"])
def test_cut_strings_count_bytes_and_escapes(character: str) -> None:
    original = character * 3000
    result = to_json([original], 500)
    assert 450 <= size(result) <= 500
    kept, _, tail = json.loads(result)[0].partition("…[")
    assert original.startswith(kept)
    assert tail == f"{size(original) - size(kept)} bytes cut]"


def test_strings_share_the_room() -> None:
    cut = json.loads(to_json(["a" * 100, "b" * 10_000, "c" * 10_000], 2000))
    assert cut[0] == "a" * 100
    assert len(cut[1]) == pytest.approx(len(cut[2]), abs=2)
    assert len(cut[1]) > 800


def test_long_lists_and_objects_say_what_is_missing() -> None:
    items = json.loads(to_json(list(range(10_000)), 500))
    assert items[:-1] == list(range(len(items) - 1))
    assert items[-1] == f"…[{10_000 - len(items) + 1} items cut]"
    keys = json.loads(to_json({f"k{i}": i for i in range(10_000)}, 500))
    assert keys.pop("…") == f"[{10_000 - len(keys)} keys cut]"
    assert keys == {f"k{i}": i for i in range(len(keys))}


def test_some_messages_stay_readable_in_a_cut_list() -> None:
    messages = [{"role": "user", "parts": [{"type": "text", "content": "w" * 2000}]}] * 3000
    cut = json.loads(to_json(messages, 64_000))
    assert len(cut) > 100
    assert all(m["parts"][0]["content"].startswith("w" * 200) for m in cut[:-1])
    assert cut[-1] == f"…[{3001 - len(cut)} items cut]"


def test_long_keys_and_numbers_are_cut() -> None:
    result = to_json({"k" * 1000: 1, "k" * 999: 2, "n": 10**4000, "s": "short"}, 700)
    assert size(result) <= 700
    value = json.loads(result)
    assert value["n"] == "…[4001 bytes cut]"
    assert value["s"] == "short"
    assert any(key.startswith("kkk") and key.endswith("bytes cut]") for key in value)


@given(text, st.integers(min_value=40, max_value=300))
def test_clean_text_is_bounded_utf8(value: str, max_bytes: int) -> None:
    result = clean_text(value * 5, max_bytes)
    assert len(result.encode()) <= max_bytes
    if "\ufffd" not in result and "…[" not in result:
        assert result.encode("utf-16", "surrogatepass") == (value * 5).encode(
            "utf-16", "surrogatepass"
        )


def test_clean_text_says_what_was_cut() -> None:
    assert clean_text("hello", 5) == "hello"
    assert clean_text("a\udfff", 10) == "a\ufffd"
    result = clean_text("é" * 100, 50)
    kept = result.index("…")
    assert result == "é" * kept + f"…[{200 - 2 * kept} bytes cut]"


# --- media --------------------------------------------------------------------------------------


def test_media_summary_of_inline_media() -> None:
    expected = {
        "mime_type": "image/png",
        "bytes": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest()[:16],
    }
    assert media_summary(PNG_URI) == expected
    assert media_summary(PNG_64) == expected
    assert media_summary(f"DATA:Image/PNG;charset=x;BASE64,{PNG_64}") == expected
    wrapped = "\n".join(PNG_64[i : i + 76] for i in range(0, len(PNG_64), 76))
    assert media_summary(f"data:image/png;base64,{wrapped}") == expected
    assert media_summary(wrapped) == expected
    safe = base64.urlsafe_b64encode(PNG).decode().rstrip("=")
    assert media_summary(f"data:image/png;base64,{safe}") == expected
    assert media_bytes(PNG_URI) == PNG


@pytest.mark.parametrize(
    ("value", "mime_type", "data"),
    [
        ("data:,hello%20you", "application/octet-stream", b"hello you"),
        ("data:text/plain;charset=utf-8,a%C3%A9", "text/plain", "aé".encode()),
        ("data:;base64,aGk=", "application/octet-stream", b"hi"),
        ("data:text/plain;base64,aGk%3D", "text/plain", b"hi"),
    ],
)
def test_other_data_uris(value: str, mime_type: str, data: bytes) -> None:
    assert media_type(value) == mime_type
    assert media_bytes(value) == data


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(60), "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(60), "audio/wav"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(60), "image/webp"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(60), "video/mp4"),
        (b"\x00\x00\x00\x14ftypqt  " + bytes(60), "video/quicktime"),
        (b"%PDF-1.7" + bytes(60), "application/pdf"),
        (bytes(range(200)), "application/octet-stream"),
    ],
)
def test_raw_base64_is_known_by_its_beginning(data: bytes, mime_type: str) -> None:
    assert media_type(base64.b64encode(data).decode()) == mime_type


@pytest.mark.parametrize(
    "value",
    [
        "https://example.com/cat.png",
        "file:///tmp/cat.png",
        "images/cat.png",
        "/home/me/cats/and/dogs/" + "x" * 60,
        "attachment://0123456789abcdef",
        "data: not a uri",
        "gs://bucket/object",
        "",
        "\ud800",
    ],
)
def test_urls_and_paths_are_no_inline_media(value: str) -> None:
    assert media_summary(value) is None


def test_strip_media_replaces_it_wherever_it_stands() -> None:
    value = {
        "image": PNG_URI,
        "text": f"see ![chart]({PNG_URI}) and <img src='{PNG_URI}'>",
        "raw": [PNG_64, (PNG_64, 1)],
        "anthropic": {"type": "base64", "media_type": "image/png", "data": PNG_64},
        "google": {"mime_type": "audio/pcm", "data": base64.b64encode(bytes(600)).decode()},
        "plain": "no media, data: none",
        "url": "https://example.com/a.png",
    }
    stripped = strip_media(value)
    assert PNG_64[:40] not in to_json(stripped, ANY)
    assert stripped["image"] == PNG_TEXT
    assert stripped["text"] == f"see ![chart]({PNG_TEXT}) and <img src='{PNG_TEXT}'>"
    assert stripped["raw"] == [PNG_TEXT, [PNG_TEXT, 1]]
    assert stripped["anthropic"]["data"] == PNG_TEXT
    assert stripped["google"]["data"].startswith("[audio/pcm, 600 bytes, sha256 ")
    assert stripped["plain"] == value["plain"]
    assert stripped["url"] == value["url"]
    assert value["image"] == PNG_URI


@pytest.mark.parametrize("value", ["A" * 5000, "x" * 5000, "deadbeef" * 100, [1, {"a": "b"}], 1.5])
def test_strip_media_leaves_the_rest_alone(value: Any) -> None:
    assert strip_media(value) is value


def test_strip_media_takes_models_apart() -> None:
    stripped = strip_media([ChatMessageUser(content=f"look: {PNG_URI}")])
    assert stripped[0]["content"] == f"look: {PNG_TEXT}"


@given(odd_values)
@settings(deadline=None)
def test_strip_media_never_raises(value: Any) -> None:
    to_json(strip_media(value), 500)


@pytest.mark.parametrize(
    "prefix", ["data:" + "a" * 200_000, "data:" * 40_000, "iVBORw0KGgo" * 9999]
)
def test_strip_media_takes_linear_time(prefix: str) -> None:
    assert timeit.timeit(lambda: strip_media(prefix + ";base64, "), number=1) < 1


# --- cost ---------------------------------------------------------------------------------------


def test_a_small_value_costs_about_one_dumps() -> None:
    value = {"role": "user", "parts": [{"type": "text", "content": "w " * 500}]}
    dumps = min(timeit.repeat(lambda: json.dumps(value, ensure_ascii=False), number=500))
    ours = min(timeit.repeat(lambda: to_json(value, 1_000_000), number=500))
    assert ours < 3 * dumps


def test_import_leaves_the_heavy_packages_out() -> None:
    code = (
        "import sys, otel_bridge.values, otel_bridge.messages;"
        "print([m for m in ('inspect_ai', 'mlflow', 'opentelemetry') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
