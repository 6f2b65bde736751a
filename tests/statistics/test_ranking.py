"""ROC-AUC, average precision and their curves against scikit-learn, with ties and scores that overflowed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from vaeguard.reports.distributions import curves
from vaeguard.statistics.metrics import measure, roc_auc


@pytest.mark.parametrize("images", [2, 10, 400])
@pytest.mark.parametrize("values", [1, 3, 10**6])
def test_measures_are_those_of_scikit_learn(images, values):
    random = np.random.default_rng(images * values)
    anomalous = random.random(images) < 0.3
    anomalous[:2] = True, False
    scores = random.integers(0, values, images).astype(float)
    measured = measure("score", anomalous, scores)
    false_positive_rate, true_positive_rate, _ = roc_curve(anomalous, scores, drop_intermediate=False)
    assert measured.roc_auc == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert measured.average_precision == pytest.approx(average_precision_score(anomalous, scores), abs=1e-12)
    assert measured.fpr_at_95_tpr == false_positive_rate[true_positive_rate >= 0.95].min()
    drawn = curves(anomalous, scores)
    precision, recall, _ = precision_recall_curve(anomalous, scores)
    assert drawn["recall"] == np.round(recall[-2::-1], 5).tolist()
    assert drawn["precision"] == np.round(precision[-2::-1], 5).tolist()
    assert (drawn["fpr"][0], drawn["tpr"][0], drawn["fpr"][-1], drawn["tpr"][-1]) == (0, 0, 1, 1)


def test_an_infinite_score_is_the_highest():
    assert roc_auc(np.array([True, True, False, False]), np.array([np.inf, 1, 0, -np.inf])) == 1
