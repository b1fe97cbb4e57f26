"""Sandbox actions, from a solver and from tools, that succeed and fail."""

from _mock import call, mock_model, says, script
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import sandbox


@solver
def explore() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        box = sandbox()
        await box.write_file("notes.txt", "first line\nsecond line\n")
        await box.write_file("data.bin", bytes(range(256)))
        counted = await box.exec(["wc", "-l", "notes.txt"], timeout=20)
        failed = await box.exec(["sh", "-c", "echo oops >&2; exit 3"], input="in", cwd="/tmp")
        read = await box.read_file("notes.txt")
        raw = await box.read_file("data.bin", text=False)
        try:
            await box.read_file("missing.txt")
        except FileNotFoundError:
            state.metadata["missing"] = True
        state.metadata["found"] = [counted.stdout, failed.returncode, read, len(raw)]
        return state

    return solve


@scorer(metrics=[accuracy()])
def notes_kept() -> Scorer:
    """Make a scorer that looks into the sandbox."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=target.text in await sandbox().read_file("notes.txt"))

    return score


@task
def sandboxed(samples: int = 1) -> Task:
    """Make 6 sandbox actions in a solver, 2 in tool calls and 1 in the scorer."""
    return Task(
        dataset=[
            Sample(
                id=f"sandbox-{n}",
                input="Look around.",
                target="second line",
                files={"given.txt": "given"},
            )
            for n in range(1, samples + 1)
        ],
        solver=[explore(), use_tools(bash(timeout=20)), generate()],
        scorer=notes_kept(),
        sandbox="local",
        model=mock_model(
            script(
                [
                    says("First.", call("bash", "call-ls", command="ls")),
                    says("Second.", call("bash", "call-cat", command="cat given.txt; exit 1")),
                    says("done"),
                ]
            )
        ),
    )
