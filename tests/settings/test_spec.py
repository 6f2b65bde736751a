import dataclasses
import json

import numpy as np
import pytest

from vaeguard.errors import UsageError
from vaeguard.settings.model import FEWEST_CLUSTERS, IMAGES_PER_CLUSTER, ModelSpec
from vaeguard.settings.presets import PRESETS, preset
from vaeguard.settings.specs import from_dict, to_dict
from vaeguard.settings.training import TrainSpec


@pytest.mark.parametrize("name", PRESETS)
def test_specs_survive_the_round_trip_through_a_dict(name):
    chosen = preset(name)
    assert from_dict(ModelSpec, to_dict(chosen.model)) == chosen.model
    assert from_dict(TrainSpec, to_dict(chosen.training)) == chosen.training


def test_an_unknown_key_suggests_the_nearest():
    with pytest.raises(UsageError, match="'latnet'.*did you mean 'latent'"):
        from_dict(ModelSpec, {"latnet": 3})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelSpec, {"kind": "transformer"}),
        (ModelSpec, {"latent": 0}),
        (ModelSpec, {"hidden": (400, -1)}),
        (ModelSpec, {"sigma": float("nan")}),
        (ModelSpec, {"dropout": 1.0}),
        (ModelSpec, {"likelihood": "mse"}),
        (ModelSpec, {"autoencoder": True, "prior": "per-class"}),
        (ModelSpec, {"sampled_elbo": True, "prior": "per-class"}),
        (ModelSpec, {"pseudo_classes": -1}),
        (TrainSpec, {"epochs": 0}),
        (TrainSpec, {"learning_rate": -1.0}),
        (TrainSpec, {"beta": float("inf")}),
        (TrainSpec, {"calibration": 0.0}),
        (TrainSpec, {"validation": 0.5, "calibration": 0.5}),
        (TrainSpec, {"device": "tpu"}),
        (TrainSpec, {"augment_warp": -0.5}),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(kind, values):
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert any(f"`{name}`" in str(caught.value) for name in values)


def test_open_choices_are_settled_by_the_data():
    assert ModelSpec().resolved((1, 8, 8), ()).kind == "mlp"
    assert ModelSpec().resolved((1, 28, 28), ()).kind == "conv"
    assert ModelSpec().resolved((1, 28, 28), ("a", "b")).guided is True
    assert ModelSpec().resolved((1, 28, 28), ("a",)).guided is False
    assert ModelSpec(guided=False).resolved((1, 28, 28), ("a", "b")).guided is False


def pseudo_classes(images, **settings):
    data = {"vectors": True} if settings.pop("vectors", False) else {}
    return ModelSpec(**settings).resolved((1, 8, 8), (), images=images, **data).pseudo_classes


def test_pseudo_classes_are_at_most_as_many_as_the_images_can_fill():
    fewest = IMAGES_PER_CLUSTER * FEWEST_CLUSTERS
    assert pseudo_classes(0) == pseudo_classes(fewest - 1) == 0
    assert pseudo_classes(fewest) == pseudo_classes(fewest + IMAGES_PER_CLUSTER - 1) == FEWEST_CLUSTERS
    assert pseudo_classes(10**6) == ModelSpec().pseudo_classes
    assert pseudo_classes(10**6, pseudo_classes=50) == 50
    counts = [pseudo_classes(images, pseudo_classes=50) for images in range(0, 1000, 7)]
    assert counts == sorted(counts)


def test_pseudo_classes_can_be_left_out_and_are_for_whole_images():
    assert pseudo_classes(10**6, pseudo_classes=0) == 0
    assert pseudo_classes(10**6, pseudo_classes=FEWEST_CLUSTERS - 1) == 0
    assert pseudo_classes(10**6, autoencoder=True) == pseudo_classes(10**6)
    assert ModelSpec(patch=8).resolved((1, 32, 32), (), images=10**6).pseudo_classes == 0
    assert pseudo_classes(10**6, vectors=True) == 0


def test_labels_change_nothing_about_the_pseudo_classes():
    assert ModelSpec().resolved((1, 8, 8), ("a", "b"), images=600).pseudo_classes == pseudo_classes(600)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelSpec, {"latent": "three"}),
        (ModelSpec, {"hidden": 400}),
        (ModelSpec, {"hidden": [400, "x"]}),
        (ModelSpec, {"guided": 1}),
        (TrainSpec, {"epochs": 2.5}),
        (TrainSpec, {"beta": "1"}),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_name(kind, values):
    for build in (from_dict, lambda kind, values: kind(**values)):
        with pytest.raises(UsageError, match=next(iter(values))):
            build(kind, values)


def test_numbers_of_numpy_and_lists_become_plain_ones():
    spec = ModelSpec(latent=np.int64(3), hidden=[np.int32(8), 4], guided=np.bool_(True))
    assert spec == ModelSpec(latent=3, hidden=(8, 4), guided=True)
    assert [type(value) for value in (spec.latent, *spec.hidden, spec.guided)] == [int, int, int, bool]


def test_a_whole_number_serves_as_a_float():
    assert json.dumps(to_dict(from_dict(TrainSpec, {"beta": 2}))) == json.dumps(to_dict(TrainSpec(beta=2.0)))


@pytest.mark.parametrize("values", [{"guided": True}, {"prior": "per-class"}])
def test_classes_are_needed_for_what_uses_them(values):
    with pytest.raises(UsageError, match="at least two labelled normal classes"):
        ModelSpec(**values).resolved((1, 8, 8), ("only",))


def test_vectors_get_a_model_that_suits_them():
    spec = ModelSpec().resolved((1, 1, 30), (), vectors=True)
    assert (spec.kind, spec.likelihood, spec.vectors) == ("mlp", "gaussian", True)
    assert (spec.latent, spec.hidden) == (15, (64, 32))
    given = ModelSpec(latent=64, hidden=(400, 400)).resolved((1, 1, 30), (), vectors=True)
    assert (given.latent, given.hidden) == (64, (400, 400))
    assert ModelSpec().resolved((1, 1, 1), (), vectors=True).latent == 1
    assert ModelSpec().resolved((1, 1, 999), (), vectors=True).latent == ModelSpec().sized().latent == 64
    assert from_dict(ModelSpec, to_dict(spec)) == spec
    assert ModelSpec().resolved((1, 1, 30), ()).likelihood == "bernoulli"


@pytest.mark.parametrize("values", [{"kind": "conv"}, {"likelihood": "bernoulli"}])
def test_what_is_for_pixels_only_is_refused_for_vectors(values):
    with pytest.raises(UsageError, match="vectors; set `model.(kind|likelihood)` to ('mlp'|'gaussian')"):
        ModelSpec(**values).resolved((1, 1, 30), (), vectors=True)


def test_images_of_which_no_model_can_be_read_are_refused_before_a_fit():
    with pytest.raises(UsageError, match="images of 20000x20000 pixels with 1 channel are too large"):
        ModelSpec(patch=8, tile=(512,)).resolved((1, 20_000, 20_000), ())


def test_specs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelSpec().latent = 3
