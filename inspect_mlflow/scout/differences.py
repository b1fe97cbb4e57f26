"""What differs between the transcript of a sample's trace and the one Scout makes of its log.

Everything else is equal, field by field, as long as content and media were captured and no value
was over the size limit (`INSPECT_MLFLOW_CAPTURE_MEDIA=true`, `INSPECT_MLFLOW_MAX_VALUE_BYTES`).
"""

from typing import Final

DIFFERENCES: Final = {
    "source_type": '"mlflow" instead of "eval_log": it says where to look for more.',
    "source_uri": "Where the trace is instead of where the log is.",
    "metadata.log": "Absent: a trace can come from any copy of the log, or from no file at all.",
    "metadata.mlflow_trace_id, metadata.mlflow_experiment_id": "Only here: the way back to MLflow.",
    "metadata.feedback, human_feedback, expectations": (
        "Only here, and only where somebody assessed the trace in MLflow."
    ),
    "events[model].call": (
        "None: a provider's raw request repeats the whole conversation in every call. What it says "
        "stands in the event's input, tools, config and output."
    ),
    "events[model].config.extra_headers, model_options.extra_headers": (
        "Absent: headers can hold credentials, which never go into spans."
    ),
    "events[input].input_ansi": "The same text as `input`, without the terminal's colours.",
    "NaN and infinities": (
        "JSON has no word for them: outside of scores they are the strings NaN, Infinity and "
        "-Infinity."
    ),
    "total_time, working_time, score": (
        "Equal to nine digits: Scout's come from the log's index by way of a data frame."
    ),
    "text that is a quoted JSON string": (
        'MLflow takes the quotes off an attribute that is `"yes"`: such a tool result or output of '
        "a sandbox comes back as `yes`. Messages are not concerned."
    ),
    "logs without event uuids or message ids (before Inspect 0.3.100)": (
        "Inspect makes up new ones whenever it reads such a log, and so does this import. Where "
        "they lack `working_start` it is 0."
    ),
    "logs whose index lacks them (message_count, total_tokens)": (
        "Scout reads counts from the log's index, which older logs don't have; here they are "
        "counted."
    ),
}
"""By field, or by the kind of log."""
