"""Trainings that operators ask for."""

import time

from azaion_daemon.errors import OperatorError
from azaion_daemon.ops.requests import ask
from azaion_daemon.store.layout import Layout

_WAIT_S = 60.0
_LONGEST_REASON = 500


def train_now(layout: Layout, reason: str) -> str:
    """Ask for a training; what will become of it, as a sentence.

    Raises:
        OperatorError: The request cannot be left, or is not answered, or the reason is too long.
    """
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= _LONGEST_REASON:
        raise OperatorError(f"a reason has between 1 and {_LONGEST_REASON} characters; this one has {len(reason)}")
    answer = ask(layout, "train_now", {"reason": reason, "time": time.time()}, wait_s=_WAIT_S)
    if answer is None:
        return "No daemon is running; the training begins at its next start."
    if not answer["ok"]:
        raise OperatorError(answer["error"])
    if answer["under_way"]:
        return f"A training is asked for; it follows what is under way: {', '.join(answer['under_way'])}."
    return "A training is asked for and begins now; see: azaion-daemon status"
