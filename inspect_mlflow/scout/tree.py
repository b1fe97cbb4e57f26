"""MLflow's flat list of spans → trees in the order of time (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Span

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def from_ns(ns: int) -> datetime:
    """The moment of a Unix time in nanoseconds, to the microsecond."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def loaded(value: Any) -> Any:
    """What JSON text says; any other text, and anything else, as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


@dataclass(frozen=True, slots=True)
class Happening:
    """A span event. `time_ns` is Unix time."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class Node:
    """A span and what is below it. Attributes are read when they are asked for."""

    id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int | None
    failed: bool
    message: str
    events: Sequence[Happening]
    attributes: Mapping[str, str]
    """As MLflow keeps them: JSON."""
    children: list[Node] = field(default_factory=list)
    _read: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, span: Span) -> Node:
        """The node of an MLflow span."""
        raw = span.to_dict()
        return cls(
            id=span.span_id,
            parent_id=span.parent_id,
            name=span.name,
            start_ns=span.start_time_ns,
            end_ns=span.end_time_ns,
            failed=str(raw["status"]["code"]).endswith("ERROR"),
            message=str(raw["status"].get("message") or ""),
            events=[
                Happening(event["name"], int(event["time_unix_nano"]), event["attributes"] or {})
                for event in raw["events"]
            ],
            attributes=raw["attributes"] or {},
        )

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute's value: JSON text is read, whoever made it."""
        if key in self._read:
            return self._read[key]
        raw = self.attributes.get(key)
        if raw is None:
            return default
        value = loaded(raw)
        if isinstance(value, str) and value[:1] in ("{", "["):
            value = loaded(value)
        self._read[key] = value
        return value

    def text(self, key: str) -> str | None:
        """An attribute that is text, even where the text reads as JSON."""
        raw = self.attributes.get(key)
        if raw is None or not isinstance(raw, str):
            return None if raw is None else json.dumps(raw)
        value = loaded(raw)
        return value if isinstance(value, str) else raw

    def content(self, key: str) -> Any:
        """An attribute that is text, or JSON of a list of parts that say their type."""
        value = self.get(key)
        parts = isinstance(value, list) and all(isinstance(p, dict) and "type" in p for p in value)
        return value if value and parts else self.text(key)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first, each level in the order of time."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


def build(spans: Iterable[Span]) -> list[Node]:
    """The roots of the spans of a trace; a span whose parent is missing is a root."""
    nodes = {node.id: node for node in map(Node.of, spans)}
    roots: list[Node] = []
    for node in sorted(nodes.values(), key=lambda node: node.start_ns):
        parent = nodes.get(node.parent_id or "")
        (roots if parent is None or parent is node else parent.children).append(node)
    return roots
