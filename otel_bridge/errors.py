"""What an error says to a person."""

from __future__ import annotations

from typing import Final

OVER: Final = "the time to wait for it was over"
"""Why something did not arrive that was still under way."""


def short_reason(error: BaseException) -> str:
    """The part of an error that a person needs: its innermost cause, on one line."""
    cause = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    return " ".join(str(cause).split())[:300] or type(cause).__name__
