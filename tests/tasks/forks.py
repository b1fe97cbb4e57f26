"""Solvers that make child processes in all the ways there are, while the hooks are at work."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time

from _mock import mock_model, says
from inspect_ai import Task, task
from inspect_ai._eval.eval import EvalLogs
from inspect_ai.dataset import Sample
from inspect_ai.hooks._hooks import emit_run_end, get_all_hooks
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

CHILD_SECONDS = 20
"""More than a child needs, and less than what would be waited for by mistake."""


def in_child(run_ids: list[str]) -> int:
    """Do what a careless child may do: end the runs of its parent, as it believes."""
    began = time.monotonic()
    thread = threading.Thread(
        target=lambda: [
            asyncio.run(emit_run_end(None, run_id, EvalLogs([]), None)) for run_id in run_ids
        ]
    )
    thread.start()
    thread.join(CHILD_SECONDS)
    return 0 if time.monotonic() - began < CHILD_SECONDS else 1


def leave(code: int) -> None:
    sys.exit(code)


@solver
def forking() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        run_ids = [run_id for hook in get_all_hooks() for run_id in getattr(hook, "_runs", ())]
        if state.sample_id == "fork":
            pid = os.fork()
            if pid == 0:
                os._exit(in_child(run_ids))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elif state.sample_id == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=leave, args=(0,))
            process.start()
            process.join(CHILD_SECONDS)
            code = -1 if process.exitcode is None else process.exitcode
        else:
            code = subprocess.run([sys.executable, "-c", ""], timeout=CHILD_SECONDS).returncode
        state.store.set("runs", len(run_ids))
        state.store.set("code", code)
        return state

    return solve


@task
def forks(times: int = 2) -> Task:
    """Each sample makes a child, and calls the model before and after."""
    return Task(
        dataset=[
            Sample(id=way, input=way, target="done")
            for way in ("fork", "multiprocessing", "subprocess")
        ],
        solver=[generate(), forking(), generate()] * times,
        scorer=includes(),
        model=mock_model(lambda turn: says("done")),
    )
