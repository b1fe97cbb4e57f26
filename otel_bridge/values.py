"""Values as bounded, valid JSON."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime as dt
import hashlib
import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import UUID

from pydantic import BaseModel

__all__ = [
    "Capture",
    "captured_json",
    "clean_text",
    "from_json",
    "media_bytes",
    "media_summary",
    "media_text",
    "media_type",
    "plain",
    "shared_level",
    "strip_media",
    "to_json",
]


@dataclasses.dataclass(frozen=True)
class Capture:
    """What of a conversation may go into spans, and how much of it.

    Attributes:
        content: prompts, completions, tool arguments and results. Off, only roles, types, names,
            ids and sizes are kept.
        media: inline images, audio, video and documents. Off, their type, size and hash stand in.
        max_value_bytes: the most UTF-8 bytes of one value.
        history_bytes: how many bytes of earlier conversation a model span may repeat.
    """

    content: bool = True
    media: bool = False
    max_value_bytes: int = 1_000_000
    history_bytes: int = 64_000


# --- JSON ---------------------------------------------------------------------------------------

_MAX_DEPTH = 100
"""Nesting beyond this is cut: readers parse recursively, and Python's own limit is near 1000."""

_MARK = 64
"""Bytes in which any value can be stood in for by a note that says what was cut."""

_KEY_BYTES = 128
"""The most bytes of a key in a value that has to be shortened."""

_SCALARS = frozenset({str, int, float, bool, type(None)})
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def to_json(value: Any, max_bytes: int, *, media: bool = True) -> str:
    """`value` as compact JSON of at most `max_bytes` UTF-8 bytes; never raises.

    What JSON has no word for becomes the nearest it has: NaN and the infinities the strings
    "NaN", "Infinity" and "-Infinity" (`float()` reads them back), dates ISO 8601, sets sorted
    lists, models and dataclasses objects, text-like bytes text and other bytes their size and
    hash, lone surrogates U+FFFD, anything else its repr without memory addresses. Integers stay
    exact numbers. Cycles, and nesting beyond 100 levels, become a note.

    A value that is too long is shortened inside the JSON: the longest strings end in
    ``…[12345 bytes cut]``, long lists in ``"…[12 items cut]"``, long objects in
    ``"…": "[12 keys cut]"``. The bound holds for `max_bytes` of 64 and more.

    Without `media`, inline media are replaced first, as `strip_media` does.
    """
    try:
        text = _ENCODER.encode(value)
        if not media and _may_hold_media(text):
            return to_json(strip_media(value), max_bytes)
        size = len(text) if text.isascii() else len(text.encode())
        if not _too_deep(value, text):
            # reading the JSON again is the quickest way to a plain copy
            return text if size <= max_bytes else _bounded(json.loads(text), max_bytes)
    except Exception:
        # Not plain: NaN, lone surrogates, odd keys, a cycle. Or code of the value's own classes
        # raised, which may be anything at all. plain() finds the place and keeps the rest.
        pass
    try:
        value = plain(value)
        return _bounded(value if media else strip_media(value), max_bytes)
    except RecursionError:  # called with hardly any stack left
        return '"…[nested too deeply]"'


def captured_json(value: Any, capture: Capture) -> str:
    """`value` as JSON, within what may be captured of it: see `to_json`."""
    return to_json(value, capture.max_value_bytes, media=capture.media)


def from_json(text: Any) -> Any:
    """What JSON text holds; None for what is no text or no JSON, as when it was cut."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def clean_text(text: str, max_bytes: int) -> str:
    """`text` as valid UTF-8 of at most `max_bytes` bytes, ending in ``…[N bytes cut]`` if cut."""
    if text.isascii():
        if len(text) <= max_bytes:
            return text
    else:
        text = _scrub(text)
        if len(text.encode()) <= max_bytes:
            return text
    return _cut(text, max_bytes, quoted=False)


def plain(value: Any) -> Any:
    """`value` made of dict (string keys), list, str, int, finite float, bool and None only.

    The same rules as `to_json`; plain values are copied, not changed.
    """
    return _plain(value, _MAX_DEPTH, set())


def _plain(value: Any, depth: int, ancestors: set[int]) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _scrub(value)
    if kind is bool or value is None:
        return value
    if kind is int:
        return _plain_int(value)
    if kind is float:
        return _plain_float(value)
    if depth == 0:
        return f"…[nested deeper than {_MAX_DEPTH} levels]"
    identity = id(value)
    if identity in ancestors:
        return "…[circular reference]"
    content = value if kind is dict or kind is list else _opened(value)
    ancestors.add(identity)
    try:
        if type(content) is dict:
            result: dict[str, Any] = {}
            for key, item in content.items():
                name = key if type(key) is str and key.isascii() else _plain_key(key)
                while name in result:
                    name += "′"  # two keys that JSON cannot tell apart: keep both
                result[name] = _plain(item, depth - 1, ancestors)
            return result
        if type(content) is list:
            items = [_plain(item, depth - 1, ancestors) for item in content]
            if issubclass(kind, (set, frozenset)):
                items.sort(key=_ENCODER.encode)  # sets have no order that lasts
            return items
        return _plain(content, depth - 1, ancestors)
    finally:
        ancestors.discard(identity)


def _jsonable(value: Any) -> Any:
    """What the encoder is to write for a value that it does not know."""
    if isinstance(value, BaseModel):
        return _opened_model(value)
    return value.isoformat() if type(value) is dt.datetime else plain(value)


def _opened(value: Any) -> Any:
    """One level of a value that is not plain: a scalar, a list or a dict of its parts."""
    try:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__add__(value, 0)
        if isinstance(value, float):
            return float.__add__(value, 0.0)
        if isinstance(value, BaseModel):
            return _opened_model(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: getattr(value, name) for name in names if hasattr(value, name)}
        if isinstance(value, Mapping):
            return dict(value.items())
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return list(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _opened_bytes(bytes(value))
        if isinstance(value, (dt.datetime, dt.date, dt.time)):
            return value.isoformat()
        if isinstance(value, dt.timedelta):
            return value.total_seconds()
        if isinstance(value, (PurePath, UUID, Decimal)):
            return str(value)
        if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy scalars and arrays
            opened = value.tolist()
            return opened if type(opened) in _SCALARS or type(opened) is list else repr(value)
        return _ADDRESS.sub("", repr(value))
    except Exception:  # code of the value's own class, which may raise anything
        return type.__repr__(type(value))


def _opened_model(model: BaseModel) -> Any:
    try:
        return model.model_dump(mode="json", exclude_none=True, warnings=False)  # as logs do
    except Exception:  # a field that pydantic cannot serialize: take the fields one by one
        return {**model.__dict__, **(model.__pydantic_extra__ or {})}


def _opened_bytes(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return media_text(_summary(_UNKNOWN, data))


def _plain_int(value: int) -> int | str:
    try:
        int.__repr__(value)
    except ValueError:  # more digits than Python converts (4300 by default)
        return hex(value)
    return value


def _plain_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain_key(key: Any) -> str:
    """A key as the text that `json.dumps` makes of it, where it makes one."""
    if isinstance(key, Enum):
        key = key.value
    value = _plain(key, 2, set())
    return value if isinstance(value, str) else _ENCODER.encode(value)


def _scrub(text: str) -> str:
    """`text` with halves of surrogate pairs joined where they meet, else U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _too_deep(value: Any, text: str) -> bool:
    """Whether `value`, with JSON `text`, nests beyond what readers take."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return False
    level = [value]
    for _ in range(_MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += [child for child in item.values() if type(child) not in _SCALARS]
            elif isinstance(item, (list, tuple)):
                deeper += [child for child in item if type(child) not in _SCALARS]
        if not deeper:
            return False
        level = deeper
    return True


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
)


# --- shortening ---------------------------------------------------------------------------------


class _Node(NamedTuple):
    """A plain value, the bytes of its JSON, and the same of what it contains.

    Of a container far beyond the budget only the beginning is measured: the rest will be cut.
    """

    value: Any
    size: int
    items: Sequence[_Node] = ()
    keys: Sequence[tuple[str, int]] = ()


def _bounded(value: Any, max_bytes: int) -> str:
    return _ENCODER.encode(_fit(_measure(value, max_bytes), max_bytes))


def _measure(value: Any, budget: int) -> _Node:
    kind = type(value)
    if kind is str:
        return _Node(value, _size(_ENCODER.encode(value)))
    if kind is int or kind is float:
        return _Node(value, len(repr(value)))
    if kind is bool or value is None:
        return _Node(value, 5 if value is False else 4)
    size = 2
    least = 0
    items: list[_Node] = []
    keys: list[tuple[str, int]] = []
    for entry in value:
        if kind is dict:
            keys.append((entry, _size(_ENCODER.encode(entry))))
            items.append(_measure(value[entry], budget))
            size += keys[-1][1] + 1
            least += min(keys[-1][1], _KEY_BYTES) + 1
        else:
            items.append(_measure(entry, budget))
        size += items[-1].size + 1
        least += min(items[-1].size, _MARK) + 1
        if least > budget + 2:
            break
    return _Node(value, size - 1 if items else size, items, keys)


def _fit(node: _Node, budget: int) -> Any:
    """The node's value, shortened so that its JSON takes at most `budget` (>= _MARK) bytes."""
    if node.size <= budget:
        return node.value
    if isinstance(node.value, str):
        return _cut(node.value, budget, quoted=True)
    if isinstance(node.value, list):
        level = shared_level([item.size + 1 for item in node.items], budget - 2) - 1
        floor = _floor(budget)
        if level >= floor:
            return [_fit(item, level) for item in node.items]
        kept: list[Any] = []
        room = budget - _MARK
        for item in node.items:
            room -= min(item.size, floor) + 1
            if room < 0:
                break
            kept.append(_fit(item, floor))
        return [*kept, f"…[{len(node.value) - len(kept)} items cut]"]
    if isinstance(node.value, dict):
        return _fit_dict(node, budget)
    return f"…[{node.size} bytes cut]"


def _fit_dict(node: _Node, budget: int) -> dict[str, Any]:
    keys = [
        (key, size) if size <= _KEY_BYTES else (_cut(key, _KEY_BYTES, quoted=True), _KEY_BYTES)
        for key, size in node.keys
    ]
    reserve = _MARK if any(size > _KEY_BYTES for _, size in node.keys) else 2
    spent = sum(size + 1 for _, size in keys) + reserve
    level = shared_level([item.size + 1 for item in node.items], budget - spent) - 1
    floor = _floor(budget)
    whole = level >= floor
    room = budget - _MARK
    result: dict[str, Any] = {}
    for (key, size), item in zip(keys, node.items, strict=True):
        if key in result:  # two long keys with the same beginning: the second is left out
            continue
        if not whole:
            room -= size + min(item.size, floor) + 2
            if room < 0:
                break
        result[key] = _fit(item, level if whole else floor)
    if len(result) < len(node.value):
        result["…"] = f"[{len(node.value) - len(result)} keys cut]"
    return result


def _floor(budget: int) -> int:
    """How small items may get before some are left out: a few readable ones beat many stubs."""
    return min(max(_MARK, budget // 128), 1024)


def shared_level(sizes: Sequence[int], room: int) -> int:
    """The highest cap under which the capped sizes add up to at most `room`."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return max(sizes, default=0)


def _cut(text: str, budget: int, *, quoted: bool) -> str:
    """The beginning of `text` and how much is missing, in `budget` bytes (as JSON if `quoted`)."""
    data = text.encode()
    room = budget - len(f"…[{len(data)} bytes cut]".encode()) - (2 if quoted else 0)
    head = data[: max(room, 0)].decode(errors="ignore")
    while quoted and head:
        size = _size(_ENCODER.encode(head)) - 2
        if size <= room:
            break
        head = head[: len(head) * room // size]  # escapes take more room than characters
    return f"{head}…[{len(data) - len(head.encode())} bytes cut]"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


# --- media --------------------------------------------------------------------------------------

_DATA_URI = re.compile(r"data:(?P<mime>[^;,\s]*)(?P<params>(?:;[^;,\s]*)*),", re.IGNORECASE)
_WHOLE = re.compile(
    r"data:(?:(?:[\w.+-]+/[\w.+-]+)?(?:;[^;,\s]*)*;base64,[A-Za-z0-9+/_=%\s-]*"
    r"|[\w.+-]+/[\w.+-]+(?:;[^;,\s]*)*,\S*)\Z",
    re.IGNORECASE,
)
_EMBEDDED = re.compile(
    r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[^;,\s]*)*;base64,[A-Za-z0-9+/_-]{32,}={0,2}", re.IGNORECASE
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+(?:\r?\n[A-Za-z0-9+/_-]+)*={0,2}\s*\Z")
_RAW_MIN = 128
"""Shorter strings that begin like no known format are taken for names or paths, not for base64."""

_SIGNATURES = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGODdh": "image/gif",
    "R0lGODlh": "image/gif",
    "JVBERi0": "application/pdf",
    "SUQz": "audio/mpeg",
    "//uQ": "audio/mpeg",
    "//vQ": "audio/mpeg",
    "//uU": "audio/mpeg",
    "T2dnUw": "audio/ogg",
    "ZkxhQ": "audio/flac",
    "PHN2Zy": "image/svg+xml",
}
"""How the base64 of common formats begins."""

_RAW_STARTS = (*_SIGNATURES, "UklGR", "AAAA")  # RIFF and ISO media say more after their length
_UNKNOWN = "application/octet-stream"
_MIME_KEYS = ("media_type", "mime_type", "mimeType", "mediaType", "format")


def media_summary(data_or_uri: str) -> dict[str, Any] | None:
    """What inline media is, without its content.

    Returns:
        ``{"mime_type": "image/png", "bytes": 12345, "sha256": "ab12…"}`` (the decoded size, the
        first 16 hex digits) of a data: URI or base64; None for any other URL and for a path.
    """
    mime_type = media_type(data_or_uri)
    return None if mime_type is None else _summary(mime_type, media_bytes(data_or_uri))


def media_type(data_or_uri: str) -> str | None:
    """The mime type of a data: URI or of base64; None for any other URL and for a path."""
    if data_or_uri[:5].lower() == "data:":
        match = _DATA_URI.match(data_or_uri)
        return match["mime"].lower() or _UNKNOWN if match else None
    return _sniffed(data_or_uri) if _looks_base64(data_or_uri) else None


def media_bytes(data_or_uri: str) -> bytes:
    """The content of what `media_type` knows as inline media."""
    match = _DATA_URI.match(data_or_uri)
    if match is None:
        return _decoded(data_or_uri)
    payload = data_or_uri[match.end() :]
    if match["params"].lower().endswith(";base64"):
        return _decoded(payload)
    return unquote_to_bytes(payload.encode(errors="replace"))


def strip_media(value: Any) -> Any:
    """`value` with inline media replaced by ``[image/png, 12345 bytes, sha256 ab12…]``.

    Media are data: URIs, alone or inside text, and base64 of a known file format or beside a
    mime type, as providers' requests have it. A plain value without any is returned as it is.
    """
    if type(value) is str:
        return _strip_text(value)
    return _strip(value, _MAX_DEPTH, set())


def _may_hold_media(text: str) -> bool:
    """Whether `strip_media` could find anything in a value with this JSON: seldom, and quick."""
    return "data:" in text.lower() or _MEDIA_MARK.search(text) is not None


_MEDIA_MARK = re.compile(f'"(?:data":"|{"|".join(map(re.escape, _RAW_STARTS))})')


def _strip(value: Any, depth: int, ancestors: set[int]) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth == 0:
        return f"…[nested deeper than {_MAX_DEPTH} levels]"
    if kind is not dict and kind is not list and kind is not tuple:
        return _strip_text(value) if kind is str else _strip(plain(value), depth - 1, ancestors)
    identity = id(value)
    if identity in ancestors:
        return "…[circular reference]"
    ancestors.add(identity)
    changed: dict[Any, Any] = {}
    for key, item in value.items() if kind is dict else enumerate(value):
        if type(item) is str:
            new = _strip_text(item)
            if new is item and key == "data" and kind is dict and len(item) >= _RAW_MIN:
                new = _strip_data(item, value)
        elif type(item) in _SCALARS:
            continue
        else:
            new = _strip(item, depth - 1, ancestors)
        if new is not item:
            changed[key] = new
    ancestors.discard(identity)
    if not changed:
        return value
    if kind is dict:
        return {**value, **changed}
    return [changed.get(index, item) for index, item in enumerate(value)]


def _strip_text(text: str) -> str:
    if text[:5].lower() == "data:" and _WHOLE.match(text):
        return media_text(media_summary(text) or {})
    if len(text) < 32:
        return text
    if ";base64," in text:
        return _EMBEDDED.sub(lambda match: media_text(media_summary(match[0]) or {}), text)
    if text.startswith(_RAW_STARTS) and _is_known(text) and _BASE64.match(text):
        return media_text(media_summary(text) or {})
    return text


def _strip_data(text: str, beside: Mapping[Any, Any]) -> str:
    """The "data" of an object that says its type, as in Anthropic's and Google's requests."""
    for key in _MIME_KEYS:
        mime_type = beside.get(key)
        if isinstance(mime_type, str) and _BASE64.match(text):
            return media_text(_summary(mime_type, _decoded(text)))
    return text


def media_text(summary: Mapping[str, Any]) -> str:
    """The text that stands in for media, from its `media_summary`."""
    return "[{mime_type}, {bytes} bytes, sha256 {sha256}]".format(**summary)


def _summary(mime_type: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()[:16]
    return {"mime_type": mime_type, "bytes": len(data), "sha256": digest}


def _decoded(payload: str) -> bytes:
    """The bytes of base64 (standard or URL-safe), or of the text itself where it is neither."""
    data = payload.encode(errors="replace")
    if b"%" in data:
        data = unquote_to_bytes(data)
    data = data.translate(_STANDARD, b" \t\r\n")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        return data


_STANDARD = bytes.maketrans(b"-_", b"+/")


def _looks_base64(text: str) -> bool:
    return (len(text) >= _RAW_MIN or _is_known(text)) and _BASE64.match(text) is not None


def _is_known(text: str) -> bool:
    """Whether `text` begins like the base64 of a known file format."""
    return text.startswith(_RAW_STARTS) and _sniffed(text) != _UNKNOWN


def _sniffed(text: str) -> str:
    for start, mime_type in _SIGNATURES.items():
        if text.startswith(start):
            return mime_type
    head = _decoded(text[:32])
    if head[:4] == b"RIFF":
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(head[8:12], _UNKNOWN)
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:10] == b"qt" else "video/mp4"
    return _UNKNOWN
