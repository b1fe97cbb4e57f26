"""Whatever is wrong with MLflow: the evaluation does not notice, and an import makes it good."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from tests.failures.playing import (
    CALLS,
    SAMPLES,
    WAVES,
    Played,
    gist,
    play,
    play_without_hooks,
)
from tests.failures.troubles import TROUBLES, Servers
from tests.support.servers import MlflowServer, running_mlflow

AT_ONCE = 3
"""How many evaluations run at the same time: they wait more than they work."""
NOISE = 12
"""Seconds that a busy machine may add to anything."""

WAITS_FOR_ITS_DATABASE = ("database locked", "database file locked")
"""MLflow waits 20 seconds and more for a lock before it says so."""

of_every_trouble = pytest.mark.parametrize("trouble", TROUBLES)


@pytest.fixture(scope="module")
def servers(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    empty_store = tmp_path_factory.mktemp("store") / "empty.db"
    MlflowClient(f"sqlite:///{empty_store}").search_experiments()
    with running_mlflow(tmp_path_factory.mktemp("mortal"), workers=1) as mortal:
        yield Servers(mlflow_server, mortal, empty_store)


@pytest.fixture(scope="module")
def plays(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Played]]]:
    """The evaluations of the troubles that tests ask for, in the background."""
    wanted = {
        item.callspec.params["trouble"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
    }
    folder = tmp_path_factory.mktemp("plays")
    pool = ThreadPoolExecutor(AT_ONCE)
    futures = {}
    for number, trouble in enumerate(name for name in TROUBLES if name in wanted):
        place = folder / str(number)
        place.mkdir()
        futures[trouble] = pool.submit(play, trouble, servers, place)
    yield futures
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def played(trouble: str, plays: Mapping[str, Future[Played]]) -> Played:
    return plays[trouble].result()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the evaluation finds out without us."""
    return gist(play_without_hooks(tmp_path_factory.mktemp("alone")))


@of_every_trouble
def test_the_evaluation_is_what_it_is_without_us(played: Played, alone: dict[str, object]) -> None:
    assert played.run.returncode == 0
    assert gist(played.log) == alone


@of_every_trouble
def test_it_takes_no_longer(played: Played) -> None:
    assert played.seconds_of_samples < WAVES * CALLS * played.sleep + NOISE
    assert played.seconds_after < played.flush_timeout + 8 + NOISE


@of_every_trouble
def test_the_other_destination_gets_every_span(played: Played) -> None:
    assert played.sent == played.spans_of_log
    assert played.sent["execute_tool lookup"] == 2 * SAMPLES


@of_every_trouble
def test_it_says_so_once_when_it_begins_and_once_at_the_end(played: Played, trouble: str) -> None:
    assert "Traceback" not in played.run.output
    assert "ERROR" not in played.run.output
    if trouble == "dies and comes back":  # in time for everything
        begins = list(played.warnings)
        assert not played.command
    else:
        *begins, ended = played.warnings
        assert "did not reach MLflow" in ended
        assert "did not reach OTLP" not in ended
        (log,) = played.run.logs
        assert played.command == ["import", f"logs/{log.name}"]
    # SQLite's trouble may turn out at the end only, and a server may be back soon enough
    seldom = trouble in WAITS_FOR_ITS_DATABASE or trouble == "dies and comes back"
    assert len(begins) == 1 or (seldom and not begins)
    for said in begins:
        assert "The evaluation goes on; its log has everything" in said


@of_every_trouble
def test_an_import_makes_mlflow_what_it_would_have_been(played: Played) -> None:
    if played.repair is not None:
        assert played.repair.returncode == 0, played.repair.output
        assert "Traceback" not in played.repair.output
    assert played.differences == [], "\n".join(played.differences)


@pytest.mark.parametrize("trouble", ["experiment deleted"])
def test_a_deleted_experiment_is_restored_by_the_import(played: Played) -> None:
    assert played.repair is not None
    assert "is restored" in played.repair.output
