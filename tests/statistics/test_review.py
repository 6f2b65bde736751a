"""What a review of some images says of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from vaeguard.statistics.review import Reviewed, caught_share, false_alarm_rate


def test_with_all_images_reviewed_the_shares_are_counts():
    flagged, passed = Reviewed(6, 14, 20), Reviewed(94, 6, 100)
    assert false_alarm_rate(flagged, passed).value == pytest.approx(6 / 100)
    assert caught_share(flagged, passed).value == pytest.approx(14 / 20)


@pytest.mark.parametrize(
    ("flagged", "passed"), [((0, 0, 5), (20, 0, 100)), ((5, 0, 5), (0, 0, 100)), ((5, 0, 5), (20, 0, 20))]
)
def test_what_was_not_reviewed_stays_unknown(flagged, passed):
    share = caught_share(Reviewed(*flagged), Reviewed(*passed))
    assert share is None


def test_the_intervals_hold_the_truth():
    draw, held, caught = np.random.default_rng(0), 0, 0
    for _ in range(200):
        normal_flagged = draw.uniform(size=900) < 0.05
        defect_flagged = draw.uniform(size=100) < 0.7
        parts = []
        for which, most in ((True, 40), (False, 60)):
            normal, defect = int((normal_flagged == which).sum()), int((defect_flagged == which).sum())
            seen = min(most, normal + defect)
            found = int(draw.hypergeometric(defect, normal, seen))
            parts.append(Reviewed(seen - found, found, normal + defect))
        rate, share = false_alarm_rate(*parts), caught_share(*parts)
        held += rate.low <= 0.05 <= rate.high
        caught += share.low <= 0.7 <= share.high
    assert min(held, caught) >= 190
