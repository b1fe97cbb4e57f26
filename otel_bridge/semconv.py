"""Every attribute, event and span name this package writes, once.

Three vocabularies meet here:

- `gen_ai.*` and `error.type`: the GenAI semantic conventions,
  https://github.com/open-telemetry/semantic-conventions-genai (model, agent, tool spans;
  evaluation events). `opentelemetry.semconv` marks its copies as moved, hence our own.
- `test.*`, `exception.*`, `service.*`: the general semantic conventions,
  https://opentelemetry.io/docs/specs/semconv/registry/attributes/test/
- `inspect.*`: what only Inspect knows. No convention covers dataset samples, epochs, solvers or
  evaluation logs, so these are this package's own and change only with a major version.

`openinference.span.kind` stands on evaluation-structure spans alone
(https://github.com/Arize-ai/openinference/tree/main/spec): on a model span it would take
precedence over the GenAI operation in some backends.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
SCOPE_NAME: Final = "otel_bridge"

# --- GenAI: operation and request -------------------------------------------------------------
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"

OPERATION_CHAT: Final = "chat"
OPERATION_EXECUTE_TOOL: Final = "execute_tool"
OPERATION_INVOKE_AGENT: Final = "invoke_agent"

# --- GenAI: response, usage, messages ---------------------------------------------------------
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"
"""The older name of `cache_write`; some backends read only this one."""
GEN_AI_USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

# --- GenAI: tools and agents ------------------------------------------------------------------
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"

# --- GenAI: evaluation result event -----------------------------------------------------------
EVENT_EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
GEN_AI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
GEN_AI_EVALUATION_SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
GEN_AI_EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

# --- general ----------------------------------------------------------------------------------
ERROR_TYPE: Final = "error.type"
EVENT_EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
TEST_SUITE_NAME: Final = "test.suite.name"
TEST_SUITE_RUN_STATUS: Final = "test.suite.run.status"
TEST_CASE_NAME: Final = "test.case.name"
TEST_CASE_RESULT_STATUS: Final = "test.case.result.status"
OPENINFERENCE_SPAN_KIND: Final = "openinference.span.kind"

# --- Inspect: where a span belongs ------------------------------------------------------------
INSPECT_KIND: Final = "inspect.kind"
"""run, task, sample, model, tool, sandbox, or the type of the Inspect span."""
INSPECT_EVAL_SET_ID: Final = "inspect.eval_set.id"
INSPECT_RUN_ID: Final = "inspect.run.id"
INSPECT_EVAL_ID: Final = "inspect.eval.id"
INSPECT_TASK_ID: Final = "inspect.task.id"
INSPECT_TASK: Final = "inspect.task"
INSPECT_SPAN_ID: Final = "inspect.span.id"
INSPECT_SPAN_TYPE: Final = "inspect.span.type"
INSPECT_SPAN_NAME: Final = "inspect.span.name"
INSPECT_SPAN_BEGIN: Final = "inspect.span.begin_uuid"
"""The uuid of the event that begins the Inspect span."""
INSPECT_SPAN_END: Final = "inspect.span.end_uuid"
INSPECT_SPAN_METADATA: Final = "inspect.span.metadata"
INSPECT_SPAN_DATA: Final = "inspect.span.data"
"""JSON of the rest of the events that begin and end the Inspect span: see `remainder`."""
INSPECT_EVENT_UUID: Final = "inspect.event.uuid"
INSPECT_EVENT_SPAN: Final = "inspect.event.span_id"
"""The Inspect span that the event names as its own."""
INSPECT_EVENT_METADATA: Final = "inspect.event.metadata"
INSPECT_WORKING_START: Final = "inspect.working_start"
INSPECT_WORKING_END: Final = "inspect.working_end"
INSPECT_WORKING_TIME: Final = "inspect.working_time"
INSPECT_VERSION: Final = "inspect.version"

# --- Inspect: run and task --------------------------------------------------------------------
INSPECT_RUN_TASKS: Final = "inspect.run.tasks"
INSPECT_TASK_FILE: Final = "inspect.task.file"
INSPECT_TASK_VERSION: Final = "inspect.task.version"
INSPECT_TASK_ARGS: Final = "inspect.task.args"
INSPECT_TASK_STATUS: Final = "inspect.task.status"
INSPECT_TAGS: Final = "inspect.tags"
INSPECT_METADATA: Final = "inspect.metadata"
INSPECT_DATASET_NAME: Final = "inspect.dataset.name"
INSPECT_DATASET_SAMPLES: Final = "inspect.dataset.samples"
INSPECT_EPOCHS: Final = "inspect.epochs"
INSPECT_SOLVER: Final = "inspect.solver"
INSPECT_TASK_DATA: Final = "inspect.task.data"
INSPECT_SAMPLES_TOTAL: Final = "inspect.samples.total"
INSPECT_SAMPLES_COMPLETED: Final = "inspect.samples.completed"
INSPECT_SAMPLES_REUSED: Final = "inspect.samples.reused"
"""How many samples a retry took over from an earlier evaluation: the task links to their spans."""
INSPECT_EARLY_STOPS: Final = "inspect.early_stops"
"""How many samples early stopping left out."""
INSPECT_EARLY_STOPPING: Final = "inspect.early_stopping"
INSPECT_METRIC_PREFIX: Final = "inspect.metric."

# --- Inspect: sample --------------------------------------------------------------------------
INSPECT_SAMPLE_ID: Final = "inspect.sample.id"
INSPECT_SAMPLE_UUID: Final = "inspect.sample.uuid"
INSPECT_SAMPLE_EPOCH: Final = "inspect.sample.epoch"
INSPECT_SAMPLE_ATTEMPT: Final = "inspect.sample.attempt"
INSPECT_SAMPLE_INPUT: Final = "inspect.sample.input"
INSPECT_SAMPLE_CHOICES: Final = "inspect.sample.choices"
INSPECT_SAMPLE_TARGET: Final = "inspect.sample.target"
INSPECT_SAMPLE_OUTPUT: Final = "inspect.sample.output"
INSPECT_SAMPLE_METADATA: Final = "inspect.sample.metadata"
INSPECT_SAMPLE_LIMIT: Final = "inspect.sample.limit"
INSPECT_SAMPLE_TOTAL_TIME: Final = "inspect.sample.total_time"
INSPECT_SAMPLE_WORKING_TIME: Final = "inspect.sample.working_time"
INSPECT_SAMPLE_MODEL_USAGE: Final = "inspect.sample.model_usage"
INSPECT_SAMPLE_EVENT_ORDER: Final = "inspect.sample.event_order"
"""JSON list: the uuid (or ordinal) of every event in the order of the log."""
INSPECT_SAMPLE_TEXT: Final = "inspect.sample.text"
"""JSON list: which of the input and the target, by attribute, is text that looks like a list."""
INSPECT_SAMPLE_MESSAGES: Final = "inspect.sample.messages"
"""JSON list of the final messages: GenAI messages, or `{"digest", "id"}` of one in a model span."""
INSPECT_SAMPLE_MESSAGE_IDS: Final = "inspect.sample.message_ids"
"""JSON object: the ids of the messages that model calls were given, by their digests."""
INSPECT_SAMPLE_TIMELINES: Final = "inspect.sample.timelines"
INSPECT_SCORE_PREFIX: Final = "inspect.score."
INSPECT_SCORE_VALUE: Final = "inspect.score.value"
INSPECT_SCORE_ANSWER: Final = "inspect.score.answer"
INSPECT_SCORE_METADATA: Final = "inspect.score.metadata"
INSPECT_SCORE_TARGET: Final = "inspect.score.target"
INSPECT_SCORE_SCORER: Final = "inspect.score.scorer"
INSPECT_SCORE_INTERMEDIATE: Final = "inspect.score.intermediate"
INSPECT_SCORE_GRADERS: Final = "inspect.score.graders"
"""The models that a scorer asked."""
INSPECT_SCORE_HISTORY: Final = "inspect.score.history"
"""JSON list of a score's states where it was edited, the scorer's own first, the current one last.

Each has `value`, and where known `answer`, `explanation`; an edit has `author`, `time`, `reason`.
"""

# --- Inspect: model calls ---------------------------------------------------------------------
INSPECT_MODEL: Final = "inspect.model"
"""The model as Inspect names it: provider/name."""
INSPECT_MODEL_ROLE: Final = "inspect.model.role"
INSPECT_MODEL_REQUESTED: Final = "inspect.model.requested"
INSPECT_MODEL_CACHE: Final = "inspect.model.cache"
INSPECT_MODEL_CACHED_USAGE: Final = "inspect.model.cached_usage"
INSPECT_MODEL_RETRIES: Final = "inspect.model.retries"
INSPECT_MODEL_REQUEST_IDS: Final = "inspect.model.request_ids"
INSPECT_MODEL_CONFIG: Final = "inspect.model.config"
INSPECT_MODEL_TOOL_CHOICE: Final = "inspect.model.tool_choice"
INSPECT_MODEL_COST: Final = "inspect.model.cost"
"""US dollars."""
INSPECT_INPUT_COUNT: Final = "inspect.input.count"
INSPECT_INPUT_PREFIX: Final = "inspect.input.prefix"
"""How many leading input messages equal the input and output of the span named next."""
INSPECT_INPUT_PREFIX_SPAN: Final = "inspect.input.prefix_span"
INSPECT_INPUT_OMITTED: Final = "inspect.input.omitted"
"""JSON list of [first, last + 1]: the positions of the prefix that are not repeated here."""

# --- Inspect: tools, subtasks, sandboxes ------------------------------------------------------
INSPECT_TOOL_MESSAGE_ID: Final = "inspect.tool.message_id"
INSPECT_TOOL_AGENT: Final = "inspect.tool.agent"
INSPECT_TOOL_AGENT_SPAN: Final = "inspect.tool.agent_span_id"
INSPECT_TOOL_TRUNCATED: Final = "inspect.tool.truncated"
INSPECT_TOOL_FAILED: Final = "inspect.tool.failed"
INSPECT_TOOL_VIEW: Final = "inspect.tool.view"
INSPECT_TOOL_ERROR: Final = "inspect.tool.error"
INSPECT_INPUT: Final = "inspect.input"
INSPECT_OUTPUT: Final = "inspect.output"
INSPECT_SANDBOX_ACTION: Final = "inspect.sandbox.action"
INSPECT_SANDBOX_COMMAND: Final = "inspect.sandbox.command"
INSPECT_SANDBOX_FILE: Final = "inspect.sandbox.file"
INSPECT_SANDBOX_EXIT_CODE: Final = "inspect.sandbox.exit_code"
INSPECT_SANDBOX_OPTIONS: Final = "inspect.sandbox.options"

INSPECT_CUT_OFF: Final = "inspect.cut_off"
"""True where the log has a beginning and no end: a limit or a cancellation came between."""

# --- what the OTEL_* limits or the size of a request cut from a span, in numbers ----------------
INSPECT_DROPPED_ATTRIBUTES: Final = "inspect.dropped.attributes"
INSPECT_DROPPED_EVENTS: Final = "inspect.dropped.events"
INSPECT_DROPPED_LINKS: Final = "inspect.dropped.links"
INSPECT_SHORTENED_VALUES: Final = "inspect.shortened.values"

# --- span events: one name per Inspect event that has no duration -----------------------------
EVENT_PREFIX: Final = "inspect."
"""A span event's name is this and Inspect's event type: `inspect.store`, `inspect.logger`, …"""
INSPECT_EVENT_DATA: Final = "inspect.event.data"
"""The event's own fields as JSON."""
