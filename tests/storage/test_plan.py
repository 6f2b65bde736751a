"""Plans of jobs that several processes share, and the lock that they share."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from vaeguard import UsageError, VaeguardError
from vaeguard.storage.plan import Plan, PlannedPiece, Share, drop_other_plan, read_plan
from vaeguard.storage.store import Store, join_job, open_job

PLAN = Plan(
    "scores",
    (PlannedPiece("k1", "'a.png' to 'c.png'", 3), PlannedPiece("k2", "'d\udcff.png'", 1)),
    {"model": "onnx cpu 1", "false-alarm rate": 0.05},
    {"inputs": ["images"]},
)


def test_every_piece_is_in_one_share():
    for of in (1, 2, 5, 9):
        shares = [list(Share.parse(f"{number}/{of}").among(7)) for number in range(1, of + 1)]
        assert sorted(piece for share in shares for piece in share) == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/4", "1.5/3", "²/3"])
def test_what_names_no_share_is_refused(text):
    with pytest.raises(UsageError, match="`piece` is "):
        Share.parse(text)


def test_the_first_plan_stays_and_the_same_one_is_welcome(tmp_path):
    for _ in range(2):
        PLAN.enter(Store(tmp_path))
    assert read_plan(Store(tmp_path)) == PLAN
    assert PLAN.missing(["k1"]) == "1 of 2 parts is missing: 'd\udcff.png'"
    assert not PLAN.missing(["k2", "other", "k1"])


OTHERS = {
    "its false-alarm rate is '0.05', but here it is '0.1'": {"settings": {**PLAN.settings, "false-alarm rate": 0.1}},
    "it has 4 inputs, but here there are 3": {"pieces": PLAN.pieces[:1]},
    "inputs in 'a.png' to 'c.png' have changed": {"pieces": (PlannedPiece("k3", "x", 3), PLAN.pieces[1])},
}


@pytest.mark.parametrize("said", OTHERS)
def test_another_plan_is_refused_with_what_differs_and_gives_way_to_who_has_the_job_alone(said, tmp_path):
    other = replace(PLAN, **OTHERS[said])
    PLAN.enter(Store(tmp_path))
    with pytest.raises(UsageError, match=f"contains the plan of a different job: {said}"):
        other.enter(Store(tmp_path))
    drop_other_plan(Store(tmp_path), PLAN)
    assert read_plan(Store(tmp_path)) == PLAN
    drop_other_plan(Store(tmp_path), other)
    other.enter(Store(tmp_path))


def test_of_many_plans_at_once_one_is_first(tmp_path):
    plans = [replace(PLAN, settings={"model": str(number)}) for number in range(16)]
    barrier, refused = threading.Barrier(len(plans)), []

    def enter(plan):
        barrier.wait()
        try:
            plan.enter(Store(tmp_path))
        except UsageError:
            refused.append(plan)

    threads = [threading.Thread(target=enter, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [plan for plan in plans if plan not in refused] == [read_plan(Store(tmp_path))]


def test_a_job_is_shared_or_belongs_to_one_process(tmp_path):
    output = tmp_path / "s.csv"
    with join_job(output) as store:
        with join_job(output):
            pass
        with pytest.raises(VaeguardError, match="another job is writing"), open_job(output):
            pass
        PLAN.enter(store)
    assert read_plan(store)
    with open_job(output), pytest.raises(VaeguardError, match="another job is writing"), join_job(output):
        pass
    assert not store.folder.exists()
