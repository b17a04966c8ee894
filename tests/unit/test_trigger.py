"""When a job is due: level-triggered on what the ledger says."""

import pytest

from azaion_daemon.dataset.trigger import TriggerFacts, decide
from azaion_daemon.settings import TriggerSettings

SETTINGS = TriggerSettings(new_annotations=100, min_total=1000)


@pytest.mark.parametrize(
    ("facts", "due", "why"),
    [
        (TriggerFacts(100, 1000), True, "train: 100 annotations are new, changed or gone since the last training, 100 are needed"),
        (TriggerFacts(5000, 9000), True, "train: 5000 annotations are"),
        (TriggerFacts(99, 5000), False, "wait: 99 annotations are new, changed or gone since the last training, 100 are needed"),
        (TriggerFacts(0, 5000), False, "wait: 0 annotations are"),
        (TriggerFacts(5000, 999), False, "wait: 999 of 1000"),
        (TriggerFacts(5000, 0), False, "wait: 0 of 1000"),
    ],
)
def test_the_decision_and_the_sentence_that_says_why(facts: TriggerFacts, why: str, *, due: bool) -> None:
    decision = decide(facts, SETTINGS)
    assert decision.due is due
    assert decision.why.startswith(why)


def test_what_is_due_stays_due_until_a_job_takes_it_up() -> None:
    assert all(decide(TriggerFacts(changed, 5000), SETTINGS).due for changed in range(100, 1100))
