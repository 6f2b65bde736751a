import numpy as np
import pytest
import torch
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainSpec
from vaeguard.errors import UsageError
from vaeguard.models.calibration import Tail
from vaeguard.models.graph import NOISE_SAMPLES, InferenceGraph
from vaeguard.models.inference import surprise_of
from vaeguard.models.objective import distortion
from vaeguard.models.terms import TERMS, term_names, term_weights
from vaeguard.models.vae import VAE

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")

ALWAYS = {"recon_error", "recon_ratio", "kl", "neg_elbo", "hidden_error", "hidden_distance", "feature_distance",
          "latent_distance"}  # fmt: skip
CLASS_TERMS, SAMPLED_TERMS = {"class_energy", "class_surprise"}, {"neg_elbo_sampled", "neg_iwae"}
KINDS = {
    "guided": ({"kind": "mlp"}, ALWAYS | CLASS_TERMS | {"pseudo_entropy"}),
    "unlabelled": ({"kind": "mlp", "guided": False, "sampled_elbo": True}, ALWAYS | SAMPLED_TERMS | {"pseudo_entropy"}),
    "conv": ({"kind": "conv", "sampled_elbo": True}, ALWAYS | CLASS_TERMS | SAMPLED_TERMS | {"pseudo_entropy"}),
    "plain": ({"kind": "mlp", "guided": False, "pseudo_classes": 0}, ALWAYS),
    "per-class": ({"kind": "mlp", "prior": "per-class"}, ALWAYS | CLASS_TERMS | {"pseudo_entropy"}),
    "autoencoder": (
        {"kind": "conv", "autoencoder": True, "sampled_elbo": True},
        ALWAYS | CLASS_TERMS | SAMPLED_TERMS | {"pseudo_entropy"},
    ),
    "vectors": ({"kind": "mlp", "sampled_elbo": True}, ALWAYS | SAMPLED_TERMS),
    "whitened": ({"kind": "mlp", "sampled_elbo": True, "whiten": True}, ALWAYS | SAMPLED_TERMS),
}
FRESH = bars(90, seed=4)[0]


def fitted(name):
    settings, terms = KINDS[name]
    model = ModelSpec(hidden=(24, 16), latent=4, width=2, **settings)
    images, labels = bars(180)
    if name in ("vectors", "whitened"):
        images, labels = images[:, 0, 0].astype(float), None
    return vaeguard.fit(images, labels, model=model, training=TrainSpec(epochs=4, batch_size=32)), terms


@pytest.fixture(scope="module")
def detectors():
    return {name: fitted(name) for name in KINDS}


def inputs(name, images=FRESH):
    return images[:, :, :1].astype(np.float32) if name in ("vectors", "whitened") else images


@pytest.mark.parametrize("name", KINDS)
def test_every_term_named_is_an_output_and_finite(detectors, name):
    detector, terms = detectors[name]
    extreme = np.concatenate([np.zeros_like(FRESH[:1]), np.full_like(FRESH[:1], 255), 255 - FRESH[:3]])
    found = detector.graph(torch.from_numpy(inputs(name, np.concatenate([FRESH, extreme]))))
    assert set(found) == {"score", "p_value", *terms, "restored", "heatmap"}
    assert set(detector.graph.term_names) == terms
    assert detector.info.term_names == tuple(detector.inspect(inputs(name)).terms)
    for term in ("score", *terms):
        assert found[term].shape == (95,), term
        assert torch.isfinite(found[term]).all(), term


@pytest.mark.parametrize("name", KINDS)
def test_the_combined_terms_are_terms_and_at_least_one_leads(detectors, name):
    graph = detectors[name][0].graph
    weights = term_weights(graph.vae.spec)
    assert tuple(weights) == graph.combined_names
    assert set(weights) <= set(graph.term_names)
    assert min(weights.values()) >= 0
    assert graph.calibration.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", KINDS)
def test_save_then_load_gives_the_same_bits_of_every_term(detectors, name, tmp_path):
    detector = detectors[name][0]
    again = vaeguard.load(vaeguard.save(detector, tmp_path))
    one, two = (some.inspect(inputs(name)) for some in (detector, again))
    np.testing.assert_array_equal(one.score, two.score)
    for term in one.terms:
        np.testing.assert_array_equal(one.terms[term], two.terms[term])


@pytest.mark.parametrize("name", KINDS)
def test_every_term_has_the_same_bits_in_any_batch(detectors, name):
    detector, order = detectors[name][0], np.random.default_rng(0).permutation(len(FRESH))
    whole, mixed = detector.inspect(inputs(name)), detector.inspect(inputs(name, FRESH[order]))
    alone = [detector.inspect(inputs(name, FRESH[k : k + 1])) for k in (0, 41, 89)]
    for term, values in {**whole.terms, "score": whole.score}.items():
        np.testing.assert_array_equal({**mixed.terms, "score": mixed.score}[term], values[order])
        singles = [({**one.terms, "score": one.score})[term][0] for one in alone]
        np.testing.assert_array_equal(singles, values[[0, 41, 89]])


@pytest.mark.parametrize("name", ["guided", "unlabelled", "conv", "vectors", "whitened"])
def test_what_is_far_from_normal_scores_above_what_is_normal(detectors, name):
    detector = detectors[name][0]
    normal, inverted = (detector.inspect(inputs(name, images)).score for images in (FRESH, 255 - FRESH))
    assert np.median(inverted) > np.quantile(normal, 0.9)


def test_an_autoencoder_does_not_combine_what_it_has_not(detectors):
    detector = detectors["autoencoder"][0]
    assert not {"kl", "neg_elbo", *SAMPLED_TERMS} & set(detector.graph.combined_names)
    assert np.abs(detector.inspect(FRESH).terms["kl"]).max() == 0


@pytest.mark.parametrize("name", ["unlabelled", "conv"])
def test_sampled_bounds_are_what_their_names_say(detectors, name):
    graph = detectors[name][0].graph
    with torch.no_grad():
        image = graph.prepared(torch.from_numpy(FRESH))
        inference = graph.infer(image)
        terms = {name: TERMS[name](inference) for name in SAMPLED_TERMS}
        posterior = graph.vae.posterior(image)
        q = torch.distributions.Normal(posterior.mean, (0.5 * posterior.logvar).exp())
        z = torch.stack([q.mean + q.stddev * noise for noise in graph.noise])
        log_x = torch.stack([-distortion(graph.vae.likelihood(one), image) for one in z])
        log_weights = log_x + (torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(2)
    neg_iwae = -(log_weights.logsumexp(0) - np.log(NOISE_SAMPLES))
    torch.testing.assert_close(terms["neg_iwae"], neg_iwae, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(terms["neg_elbo_sampled"], -log_weights.mean(0), rtol=1e-4, atol=1e-3)
    # Jensen: at most the mean over the same samples, and no lower than the best of them allows.
    assert (terms["neg_iwae"] <= -log_weights.mean(0) + 1e-3).all()
    assert (terms["neg_iwae"] >= -log_weights.amax(0) - 1e-3).all()


@pytest.mark.parametrize("name", ["unlabelled", "conv"])
def test_the_importance_weighted_bound_is_the_tighter_one(detectors, name):
    terms = detectors[name][0].inspect(np.concatenate([FRESH, 255 - FRESH])).terms
    assert (terms["neg_iwae"] <= terms["neg_elbo_sampled"]).all()


def test_the_noise_is_the_same_for_every_model():
    specs = [ModelSpec(latent=5, hidden=(8,), sampled_elbo=True).resolved((1, size, size), ()) for size in (6, 8)]
    one, two = (InferenceGraph(VAE(spec)).noise for spec in specs)
    assert one.shape == (NOISE_SAMPLES, 5)
    assert torch.equal(one, two)


@pytest.mark.parametrize("clusters", [10, 30])
def test_entropy_of_pseudo_classes_lies_between_none_and_that_of_logits_that_say_nothing(clusters):
    spec = ModelSpec(kind="mlp", hidden=(8,), latent=3, pseudo_classes=clusters).resolved((1, 8, 8), (), images=600)
    graph = InferenceGraph(VAE(spec)).eval()
    image = graph.prepared(torch.from_numpy(FRESH))
    with torch.no_grad():
        graph.vae.pseudo_head.weight.mul_(100)
        entropy = graph.infer(image).pseudo_entropy
        graph.vae.pseudo_head.weight.zero_()
        graph.vae.pseudo_head.bias.zero_()
        flat = graph.infer(image).pseudo_entropy
    torch.testing.assert_close(flat, torch.full((90,), np.log(clusters)).float())
    assert 0 <= entropy.min() <= entropy.max() <= np.log(clusters) + 1e-5


def test_distances_of_training_images_are_not_larger_than_those_of_new_ones():
    images, _ = bars(180)
    detector = vaeguard.fit(images, model=ModelSpec(kind="mlp", hidden=(24,), latent=4), training=TrainSpec(epochs=4))
    seen, new = detector.inspect(images).terms, detector.inspect(255 - FRESH).terms
    for term in ("recon_ratio", "hidden_distance", "feature_distance", "latent_distance"):
        assert np.median(seen[term]) < np.median(new[term]), term
    assert seen["hidden_distance"].mean() == pytest.approx(1, abs=0.3)
    assert seen["recon_ratio"].mean() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("images", [0, 600])
@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_names_of_terms_follow_the_spec(images, classes):
    spec = ModelSpec().resolved((1, 8, 8), classes, images=images)
    names = term_names(spec)
    assert len(set(names)) == len(names)
    assert ("pseudo_entropy" in names) is (images > 0)
    assert ("class_surprise" in names) is bool(classes)
    assert InferenceGraph(VAE(spec)).term_names == names


def test_terms_can_be_left_out():
    without = ("hidden_error", "hidden_distance", "latent_distance", "feature_distance", "kl")
    spec = ModelSpec(latent=5, hidden=(8,), without=without).resolved((1, 8, 8), ())
    graph = InferenceGraph(VAE(spec)).eval()
    passes = []
    graph.vae.stages[0].register_forward_hook(lambda *_: passes.append(1))
    results = graph(torch.rand(3, 1, 8, 8))
    assert graph.term_names == ("recon_error", "recon_ratio", "neg_elbo")
    assert not set(without) & results.keys()
    assert len(passes) == 1  # nothing is encoded again for terms that nobody asked for
    assert torch.unique(graph.calibration.weights).numel() == 1  # no leading term is left, so all lead


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"without": ("nonsense",)}, "no such term; its terms are recon_error"),
        ({"without": ("class_energy",)}, "no such term"),
        ({"autoencoder": True, "without": tuple(ALWAYS - {"kl", "neg_elbo"})}, "removes every term"),
    ],
)
def test_terms_that_cannot_be_left_out_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        InferenceGraph(VAE(ModelSpec(latent=5, hidden=(8,), **settings).resolved((1, 8, 8), ())))


def test_the_surprise_of_hardly_any_doubt_has_all_its_digits():
    logits = torch.tensor(
        [[0.0, -16.0, -17.0], [30.0, 30.0, -3.0], [0.0, -4.5, -4.7], [0.1, 0.0, -1.0], [9.0, 9.0, 9.0]]
    )
    exact = logits.double().logsumexp(1) - logits.double().amax(1)
    torch.testing.assert_close(surprise_of(logits).double(), exact, rtol=2e-6, atol=0.0)
    # What a quantile's slope divides by must not vanish either.
    tail = Tail(1)
    tail.fit(surprise_of(torch.stack([torch.linspace(60, 120, 400), torch.zeros(400)], 1))[:, None].numpy())
    assert tail(surprise_of(torch.tensor([[110.0, 0.0], [80.0, 0.0], [1.0, 0.0]]))[:, None]).isfinite().all()


def test_grey_values_are_judged_between_their_levels_by_a_density():
    model = ModelSpec(kind="mlp", hidden=(8,), latent=2, likelihood="continuous-bernoulli", pseudo_classes=0)
    images = bars(60)[0]
    found = vaeguard.fit(images, model=model, training=TrainSpec(epochs=2))
    with torch.inference_mode():
        posterior = found.encode(images[:5])
        likelihood = found.graph.vae.likelihood(torch.from_numpy(posterior.mean))
        rate = found.inspect(images[:5]).terms["kl"]
        expected = distortion(likelihood, torch.from_numpy((images[:5] + 0.5) / 256).float())
    np.testing.assert_allclose(found.inspect(images[:5]).terms["neg_elbo"], expected.numpy() + rate, rtol=1e-5)
