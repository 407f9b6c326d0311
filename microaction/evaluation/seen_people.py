"""Whether a network was trained on the people it is measured on: a number says little without it."""

from collections.abc import Collection

MMA52_NOTE = "MA-52's subjects recur by number in MMA-52's val, so weights that began with MA-52's may have seen them"


def whom_seen(
    trained_subjects: Collection[str] | None, evaluated_subjects: Collection[str | None], *, is_mma52: bool = False
) -> str:
    """Return a sentence that says how many of the people evaluated were trained on, as far as is known.

    `trained_subjects` is None where the weights do not say, and a subject of `evaluated_subjects` is None where nobody knows
    who is in a video. Numbers are compared as numbers: "0196" of MA-52 is "196" of MMA-52. `is_mma52` adds what is known of
    that list.
    """
    known = {_canonical(subject) for subject in evaluated_subjects if subject is not None}
    num_seen = len(known & {_canonical(subject) for subject in trained_subjects or ()})
    people = f"{len(known)} people {'known among those ' if None in evaluated_subjects else ''}evaluated"
    if trained_subjects is None:
        sentence = "unknown: the weights do not say whom they were trained on"
    elif not known:
        sentence = "unknown: the list does not say who is in the videos"
    else:
        sentence = f"{num_seen or 'none'} of the {people} {'were' if num_seen else 'was'} trained on"
        if None in evaluated_subjects:
            sentence += "; of some videos nobody knows who is in them"
    return f"{sentence}; {MMA52_NOTE}" if is_mma52 else sentence


def _canonical(subject: str) -> str:
    return subject.lstrip("0") or "0" if subject.isdecimal() else subject
