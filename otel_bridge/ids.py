"""Trace and span ids, derived from Inspect's ids so that anyone can compute them from a log."""

from hashlib import blake2b, md5
from uuid import UUID


def trace_id(key: str) -> int:
    """Trace id (128 bit, never 0) of a run (`key` = run id) or a sample (`key` = sample uuid)."""
    data = key.encode("utf-8", "replace")
    return int.from_bytes(blake2b(data, digest_size=16).digest(), "big") or 1


def span_id(*parts: str) -> int:
    """Span id (64 bit, never 0) of what `parts` name, e.g. the sample uuid and an event's uuid."""
    data = "\x1f".join(parts).encode("utf-8", "replace")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") or 1


def hex_trace_id(value: int) -> str:
    """32 lower-case hex digits."""
    return f"{value:032x}"


def hex_span_id(value: int) -> str:
    """16 lower-case hex digits."""
    return f"{value:016x}"


def sample_key(uuid: str | None, eval_id: str, id: int | str, epoch: int) -> str:
    """A sample's uuid, or for older logs without one, Inspect's own fallback for it.

    The fallback is the id that `inspect_ai.analysis` and Inspect Scout give such a sample.
    """
    if uuid:
        return uuid
    import shortuuid

    digest = md5(f"{eval_id}_{id}_{epoch}".encode("utf-8", "replace")).digest()
    return str(shortuuid.encode(UUID(bytes=digest)))
