"""Spares a running evaluation the garbage collector's walks through what was loaded before it.

A full collection visits every object, and an evaluation that keeps its samples has several. The
modules that hooks import would make each of them longer by tenths of a second, in which nothing
else runs. So while evaluations run, what is there when they begin, and when the last import is
done, is left out; reference counts free it as ever. At the end all is as it was.
"""

from __future__ import annotations

import gc

_running = 0
_ours = False
"""Whether nobody else had frozen anything before."""


def begin() -> None:
    """An evaluation begins."""
    global _running, _ours
    _running += 1
    if _running == 1:
        _ours = gc.get_freeze_count() == 0
    spare()


def spare() -> None:
    """Something has been imported. Does nothing outside of evaluations."""
    if _running and _ours:
        gc.freeze()


def end() -> None:
    """An evaluation is over; with the last one, the collector has everything back."""
    global _running
    _running -= 1
    if not _running and _ours:
        gc.unfreeze()
