"""A canary in everything that is content: to be found nowhere when content is not captured."""

import contextlib
import logging

from _mock import Turn, call, mock_model, says
from inspect_ai import Task, task
from inspect_ai.approval import ApprovalPolicy, auto_approver
from inspect_ai.dataset import Sample
from inspect_ai.event import InputEvent, ReviewEvent
from inspect_ai.log import transcript
from inspect_ai.model import (
    ChatMessageSystem,
    ChatMessageUser,
    ContentCitation,
    ContentData,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import (
    Generate,
    Solver,
    TaskState,
    generate,
    solver,
    system_message,
    use_tools,
)
from inspect_ai.tool import Tool, ToolCall, ToolError, bash, tool
from inspect_ai.util import sandbox, span, store, subtask

CANARY = "canary7f3a"
"""What must not be found."""
WORDS = f"{CANARY}: a line\n{CANARY}: another\n{CANARY}"
IMAGE = f"data:image/png;base64,{CANARY}AAAA"

logger = logging.getLogger(__name__)


@tool
def whisper() -> Tool:
    async def execute(text: str) -> str:
        """Whisper canary7f3a.

        Args:
            text: The canary7f3a to whisper.
        """
        if "fail" in text:
            raise ToolError(WORDS)
        return f"{WORDS} {text}"

    return execute


@tool
def break_down() -> Tool:
    async def execute(text: str) -> str:
        """Break the sample.

        Args:
            text: What is wrong.
        """
        raise RuntimeError(f"{WORDS}\n\nTraceback (most recent call last):\n{CANARY}: {text}")

    return execute


@subtask
async def summarise(text: str) -> str:
    store().set("inner", text)
    return WORDS


@solver
def gossip() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        transcript().info({CANARY: WORDS}, source="tests")
        logger.warning("a warning of %s", WORDS)
        store().set(CANARY, WORDS)
        state.metadata["more"] = WORDS
        async with span("asking"):
            transcript()._event(InputEvent(input=WORDS, input_ansi=WORDS, message=WORDS))
            transcript()._event(
                ReviewEvent(
                    message=WORDS,
                    call=ToolCall(id="c", function="f", arguments={"x": WORDS}),
                    reviewer="human",
                    decision="continue",
                    explanation=WORDS,
                )
            )
        await summarise(WORDS)
        await sandbox().exec(["echo", CANARY], input=WORDS, env={"SECRET": CANARY})
        await sandbox().write_file("notes.txt", WORDS)
        await sandbox().read_file("notes.txt")
        with contextlib.suppress(FileNotFoundError):
            await sandbox().read_file(f"{CANARY}.txt")
        return state

    return solve


@scorer(metrics=[mean()])
def gossiping() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=1, answer=WORDS, explanation=WORDS, metadata={CANARY: WORDS})

    return score


@scorer(metrics={"*": [mean()]})
def labelling() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value={"label": f"{CANARY} label", "number": 0.5}, explanation=WORDS)

    return score


def _respond(turn: Turn) -> ModelOutput:
    if turn.number == 0:
        return says(
            [
                ContentReasoning(reasoning=WORDS, summary=WORDS),
                ContentText(text=WORDS, citations=[ContentCitation(cited_text=WORDS)]),
                ContentData(data={CANARY: WORDS}),
            ],
            call("whisper", "call-1", text=WORDS),
            call("whisper", "call-2", text=f"fail {WORDS}"),
            call("bash", "call-3", command=f"echo {CANARY}; echo {CANARY} >&2; exit 1"),
            call("whisper", "call-4", wrong=WORDS),
        )
    if turn.number == 1 and "breaks" in turn.question:
        return says("Breaking.", call("break_down", "call-5", text=WORDS))
    if turn.number == 1 and "fails" in turn.question:
        raise ValueError(WORDS)
    return says(WORDS)


@task
def secrets(word: str = "", number: int = 0) -> Task:
    """Run three samples, of which one fails in a tool and one in a model call."""
    return Task(
        description=WORDS,
        dataset=[
            Sample(
                id=name,
                input=[
                    ChatMessageSystem(content=f"You {name} {WORDS}"),
                    ChatMessageUser(
                        content=[
                            ContentText(text=f"It {name}. {WORDS}"),
                            ContentImage(image=IMAGE),
                        ]
                    ),
                ],
                choices=[WORDS, "other"],
                target=WORDS,
                metadata={CANARY: WORDS, "list": [WORDS]},
                files={"given.txt": WORDS},
                setup=f"echo {CANARY}",
            )
            for name in ("works", "breaks", "fails")
        ],
        solver=[
            system_message(WORDS),
            gossip(),
            use_tools(whisper(), break_down(), bash(timeout=20)),
            generate(),
        ],
        scorer=[gossiping(), labelling()],
        approval=[ApprovalPolicy(auto_approver("approve"), "*")],
        sandbox=("local", f"{CANARY}.yaml"),
        fail_on_error=False,
        model=mock_model(_respond),
        config=GenerateConfig(stop_seqs=[WORDS], extra_headers={"x-key": WORDS}),
        metadata={"about": WORDS},
    )
