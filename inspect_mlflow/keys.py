"""Keys of metrics, params and tags, and texts, that MLflow takes (pure)."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

KEY_LENGTH: Final = 250
_REFUSED: Final = re.compile(r"[^\w\-. :/]")


def clean_key(key: str) -> str:
    """The key with `_` for what MLflow doesn't take.

    It takes word characters and `_ - . space : /`, at most 250, that form a plain path. A longer
    key ends in a short hash.
    """
    cleaned = _REFUSED.sub("_", key)
    cleaned = re.sub(r"/{2,}", "/", cleaned).strip("/")
    cleaned = "/".join("_" if part in ("", ".", "..") else part for part in cleaned.split("/"))
    return cleaned if len(cleaned) <= KEY_LENGTH else _with_hash(cleaned, key)


def clean(text: str) -> str:
    """The text without NUL, which PostgreSQL takes nowhere."""
    return text.replace("\0", "\ufffd")


def cut(text: str, length: int) -> str:
    """At most `length` characters of the text; an ellipsis is the last where there were more."""
    text = clean(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


class Keys:
    """Cleaned keys of one run: no two names get the same.

    The first name keeps the cleaned key, another that would be cleaned to the same gets a short
    hash of itself at its end. Names of different kinds are different names.
    """

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def key(self, name: str, kind: str = "") -> str:
        """The key of a name."""
        known = self._keys.get((kind, name))
        if known is not None:
            return known
        key = clean_key(name)
        salt = kind
        while key in self._taken:
            key = _with_hash(clean_key(name), f"{salt} {name}")
            salt += " "
        self._taken.add(key)
        self._keys[kind, name] = key
        return key


def _with_hash(cleaned: str, original: str) -> str:
    digest = blake2b(original.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return f"{cleaned[: KEY_LENGTH - 9]}_{digest}"
