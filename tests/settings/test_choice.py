from dataclasses import replace

import pytest

from vaeguard import ModelSpec, TrainSpec, UsageError
from vaeguard.settings.choice import DEFAULT_FEATURES, asks_for_pixels, with_features
from vaeguard.settings.overrides import parse_setting
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.views import FeatureView

PHOTOGRAPH = (3, 200, 100)


def chosen(shape=PHOTOGRAPH, *, vectors=False, training=None, **model):
    return with_features(ModelSpec(**model), training or TrainSpec(), shape, vectors=vectors).features


def test_photographs_are_learned_by_their_features_and_small_images_by_their_pixels():
    assert chosen() == chosen((1, 96, 96)) == DEFAULT_FEATURES
    assert chosen((1, 28, 28)) == chosen((3, 95, 640)) == chosen((4, 200, 200)) == ""
    assert chosen((1, 1, 500), vectors=True) == ""
    assert chosen(features="none") == ""
    assert chosen((1, 32, 32), features="resnet18") == "resnet18"


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "mlp"}, {"patch": 16}, {"likelihood": "gaussian"}, {"prior": "per-class"}, {"guided": True},
        {"autoencoder": True}, {"pseudo_classes": 10}, {"width": 8},
    ],
)  # fmt: skip
def test_a_setting_of_pixels_asks_for_them(model):
    assert chosen(**model) == ""
    assert asks_for_pixels(ModelSpec(**model), TrainSpec()) == f"model.{next(iter(model))}"


@pytest.mark.parametrize(
    "training",
    [{"binarise": True}, {"augment_warp": 1.0}, {"augment_flip": True}, {"input_noise": 0.1}, {"balance": True}],
)
def test_a_training_on_pixels_asks_for_them(training):
    assert chosen(training=TrainSpec(**training)) == ""


def test_settings_of_any_model_do_not_ask_for_pixels():
    training = TrainSpec(seed=3, epochs=2, beta=0.5, batch_size=64, augment_warp=0.0)
    assert chosen(latent=8, hidden=(64,), guided=False, pseudo_classes=0, training=training) == DEFAULT_FEATURES
    assert all(asks_for_pixels(preset.model, preset.training) for preset in PRESETS.values())


def test_each_view_has_its_defaults():
    places = ModelSpec(features=DEFAULT_FEATURES).resolved(PHOTOGRAPH, (), feature_count=256)
    assert (places.hidden, places.latent, places.activation, places.sigma) == ((256, 128), 32, "gelu", 0.5)
    assert places.is_resolved
    images = ModelSpec(features="").resolved(PHOTOGRAPH, ())
    assert (images.activation, images.sigma) == ("relu", 0.5**0.5)
    training = TrainSpec(learning_rate=0.1).sized(FeatureView())
    assert (training.batch_size, training.learning_rate) == (1024, 0.1)
    training = TrainSpec().sized(images.view)
    assert (training.batch_size, training.learning_rate) == (128, 1e-3)


def test_the_text_none_asks_for_pixels_and_elsewhere_for_the_default():
    assert parse_setting(ModelSpec, "features", "none") == replace(ModelSpec(), features="none").features == ""
    assert parse_setting(ModelSpec, "kind", "none") is None


def test_features_see_grey_and_colour_only():
    with pytest.raises(UsageError, match="grey or colour images, not 4 channels"):
        ModelSpec(features=DEFAULT_FEATURES).resolved((4, 200, 200), ())
