"""The summary's line on alerts."""

import pytest

from beam_pipeline.job.summary import _alerts


@pytest.mark.parametrize(
    ("outcomes", "number", "text"),
    [
        ({}, 0, "0"),
        ({"delivered": 3}, 1, "3 (delivered 3)"),
        ({"delivered": 6}, 2, "6 to 2 targets (delivered 6)"),
        ({"not_sent": 3}, 0, "3 (not_sent 3); the same command with --alert_url sends them"),
        (
            {"delivered": 2, "failed": 1},
            1,
            "3 (delivered 2, failed 1); 1 not delivered (alerts/ says why): the same command or "
            "`alerts resend` tries them again",
        ),
        (
            {"suppressed": 5, "delivered": 3},
            1,
            "3 (delivered 3); 5 more suppressed in the cooldown of an alert",
        ),
        (
            {"suppressed": 5, "not_sent": 3},
            0,
            "3 (not_sent 3); the same command with --alert_url sends them; 5 more suppressed in "
            "the cooldown of an alert",
        ),
        (
            {"delivered": 4, "in_digest": 90, "too_old": 2},
            1,
            "4 (delivered 4); 90 more reported in digests, beyond a limit of the rules; 2 more "
            "older than --alert_max_age, and not sent",
        ),
        (
            {"delivered": 1, "delivered_earlier": 3},
            1,
            "1 (delivered 1); 3 more delivered before",
        ),
        ({"delivered_earlier": 3}, 1, "0; 3 more delivered before"),
        ({"delivered": 4, "waiting": 2}, 1, "4 (delivered 4, waiting 2)"),
    ],
)
def test_suppressed_alerts_are_reported_and_are_not_undelivered(outcomes, number, text):
    assert _alerts(outcomes, number) == text
