"""The page of exit codes and kinds of failures, from the exception tree."""

from docs.scripts.markdown import code, table
from microaction.errors import EXIT_CODES, FailureKind

FAILURES = {
    FailureKind.DECODE_ERROR: (
        "The video, or a part of it, cannot be decoded: it is damaged, ends early, holds no video, or is of a kind that is not "
        "supported.",
        "Play the file at that second. Repair or replace it; a changed file is new work for the same command.",
    ),
    FailureKind.DECODER_TIMEOUT: (
        "The decoder did not finish a chunk within `--decode-timeout-s` and was stopped.",
        "On a busy node, raise the limit and pass `--retry-failed`. Otherwise the file makes its decoder hang: convert it.",
    ),
    FailureKind.DECODER_CRASHED: (
        "The decoder's process died, or took more memory than `--decode-memory-gib`.",
        "Raise the limit for frames of unusual size and pass `--retry-failed`. Otherwise convert the file.",
    ),
    FailureKind.INVALID_REGION: (
        "The region of the catalog does not lie inside the video's frames.",
        "Correct `region_left`, `region_top`, `region_width` and `region_height` in the catalog.",
    ),
    FailureKind.NO_SKELETON: (
        "The table of skeletons has no keypoints of this part of the video, so nothing tells where the people are.",
        "Complete the table; it names videos relative to the archive. A changed table is new work for the same command.",
    ),
    FailureKind.WORKER_DIED: (
        "The chunk killed, stalled or failed the process that worked on it, alone and more than once.",
        "Look for nodes out of memory (`ray status`, Ray's logs), then pass `--retry-failed`.",
    ),
    FailureKind.UNEXPECTED: (
        "An exception that nobody foresaw; `reason` has its text.",
        "Please report it, with the `reason` and if possible the file.",
    ),
    FailureKind.STORAGE_ERROR: (
        "The store refused to list or read the file.",
        "Check the permissions that `reason` names, then run the same command again.",
    ),
    FailureKind.VIDEO_CHANGED: (
        "The file was replaced or deleted after it was cataloged.",
        "Run the same command again: it catalogs the archive anew.",
    ),
    FailureKind.UNAVAILABLE: (
        "The archive lists the video, but its content cannot be reached: a link to nothing, a folder that may not be "
        "opened, a name that is not UTF-8.",
        "As `reason` says, then run the same command again: it lists the archive anew.",
    ),
    FailureKind.MODEL_ERROR: (
        "The network could not run on the chunk's frames, for example because the device was out of memory.",
        "Run the same command again; if it repeats, lower `--batch-windows`.",
    ),
    FailureKind.NOBODY_SEEN: (
        "Nobody is seen in this span of the video. People who lie, turn their backs or are far away may be missed.",
        "If somebody is there, add the span to the list of people, or set a region in the catalog.",
    ),
    FailureKind.TOO_SMALL: (
        "The person is less than a fifth of the frame high, or much smaller than the tallest person: micro-actions do not show.",
        "To label the person anyway, make the `error` null in the list of people.",
    ),
    FailureKind.SEEN_BRIEFLY: (
        "The person is seen for less than 6 s in the whole video, and may be none.",
        "To label the person anyway, make the `error` null in the list of people.",
    ),
    FailureKind.OVERLAP: (
        "The person covers another one or is covered, so that no crop shows one of them alone.",
        "To label the span anyway, draw its crop in the list of people and make the `error` null.",
    ),
    FailureKind.TOO_MANY_PEOPLE: (
        "As many people are seen at once as are looked for, 12: there may be more, who are not labeled.",
        "Add those who are missing to the list of people.",
    ),
}

PAGE = """# Exit codes

Every command ends with one of these codes. What went wrong is one line on standard error.

{codes}

SIGTERM ends a command like Ctrl-C, with code 1. A Ray job that fails ends `ray job submit` with 1, whatever the code
of the command was: `ray job logs ID` shows the message, and `bash -c 'microaction … || test $? = 3'` as the job's
command distinguishes the codes.

In Python the same errors are exceptions: all derive from `microaction.errors.MicroactionError`, whose `exit_code` is
the code above ([API](api.md#errors)).

## Kinds of failures

A video that cannot be labeled does not end a run. It ends as a row of [`failures/`](output-tables.md#failures), and a
column `error` says of which kind, `reason` what happened. *Transient* kinds say nothing about the video: the next run
of the same command retries them by itself, and until then the command exits with 1. The others are retried with
`--retry-failed`.

{failures}

The stages are `catalog` (reading the file's header), `people` (looking for them), `decode` and `label` (running the network).
"""


def render() -> str:
    """Return the page."""
    codes = table(("code", "meaning"), [(code(number), meaning) for number, meaning in EXIT_CODES.items()])
    rows = [
        (code(kind), "transient" if kind.is_retryable else "permanent", meaning, advice)
        for kind, (meaning, advice) in ((kind, FAILURES[kind]) for kind in FailureKind)
    ]
    failures = table(("`error`", "", "meaning", "what to do"), rows)
    return PAGE.format(codes=codes, failures=failures)
