"""MLflow traces → Inspect Scout transcripts.

A trace that this package wrote of an evaluation gives the transcripts that Scout makes of the log
itself, one per sample; `inspect_mlflow.scout.differences` lists what differs. Any other trace gives
one transcript.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from logging import getLogger
from typing import TYPE_CHECKING

from inspect_mlflow.scout.client import Reader, ScoutImportError, Selection

if TYPE_CHECKING:
    from inspect_scout import Transcript

    from inspect_mlflow.scout.importing import TraceImport

__all__ = ["ScoutImportError", "Selection", "import_mlflow_traces", "trace_import"]

logger = getLogger(__name__)


async def import_mlflow_traces(
    experiment_name: str | None = None,
    tracking_uri: str | None = None,
    limit: int | None = None,
    *,
    from_time: datetime | None = None,
    to_time: datetime | None = None,
    run_id: str | None = None,
    trace_id: str | Sequence[str] | None = None,
    session_id: str | None = None,
    tags: Mapping[str, str | None] | Sequence[str] | None = None,
    filter: str | None = None,
) -> AsyncIterator[Transcript]:
    """Scout transcripts of the traces in an MLflow experiment, the oldest first.

    Traces are read a page at a time. Those still in progress are left out, and samples of an
    evaluation that has not ended; how many is logged as a warning at the end, as is what of a trace
    could not be read.

    Parameters
    ----------
    experiment_name
        The experiment; `MLFLOW_EXPERIMENT_NAME` or `inspect_ai` by default.
    tracking_uri
        MLflow's server or database; `MLFLOW_TRACKING_URI` by default.
    limit
        The most transcripts.
    from_time, to_time
        Traces that began at or after, and before. Times without a time zone are UTC.
    run_id
        Traces of one MLflow run.
    trace_id
        These traces alone, whatever their experiment; no other filter applies.
    session_id
        Traces of one session.
    tags
        Tags that a trace has: names, or names with values (None: any value).
    filter
        A condition in MLflow's search syntax, e.g. ``attributes.status = 'ERROR'``.

    Raises
    ------
    ScoutImportError
        If MLflow can't be reached, or has no such experiment or trace, or if no address was given
        or a setting has a value that is not accepted.

    Examples
    --------
    >>> from inspect_scout import transcripts_db
    >>> async with transcripts_db("./transcripts") as db:  # doctest: +SKIP
    ...     await db.insert(import_mlflow_traces("support-agent", "http://localhost:5000"))
    """
    selection = Selection(from_time, to_time, run_id, trace_id, session_id, tags, filter)
    source = trace_import(experiment_name, tracking_uri, limit, selection)
    async for transcript in source.transcripts():
        yield transcript
    for line in source.left_out():
        logger.warning(line)


def trace_import(
    experiment_name: str | None = None,
    tracking_uri: str | None = None,
    limit: int | None = None,
    selection: Selection | None = None,
) -> TraceImport:
    """The import with its counts; parameters and errors as `import_mlflow_traces`."""
    from inspect_mlflow.config import load_settings
    from inspect_mlflow.scout.importing import TraceImport

    given = {"experiment_name": experiment_name, "tracking_uri": tracking_uri}
    settings, problems = load_settings(**{name: value for name, value in given.items() if value})
    for problem in problems:
        raise ScoutImportError(problem.message)
    if settings.tracking_uri is None:
        raise ScoutImportError(
            "No MLflow to read from: give a tracking_uri, or set MLFLOW_TRACKING_URI."
        )
    reader = Reader(settings.tracking_uri, settings.experiment_name, settings.experiment_id)
    return TraceImport(reader, selection or Selection(), limit)
