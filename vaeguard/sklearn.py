"""The detector as a scikit-learn estimator, and as one in PyOD's convention: the same model, opposite signs.

>>> from vaeguard.sklearn import VAEDetector
>>> VAEDetector(contamination=0.05).fit(table).predict(new_rows)  # doctest: +SKIP

Signs and directions:

==================================  =======================  ======================
member                              `VAEDetector`            `PyODDetector`
==================================  =======================  ======================
`predict`, `fit_predict`            −1 anomalous, +1 normal  1 anomalous, 0 normal
`decision_function`                 below 0 anomalous        higher = more anomalous
`score_samples`                     higher = more normal     (not there)
`decision_scores_`, `threshold_`    higher = more anomalous  higher = more anomalous
`labels_`                           1 anomalous, 0 normal    1 anomalous, 0 normal
==================================  =======================  ======================
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vaeguard.data.arrays import as_batch, warn_of_rounding
from vaeguard.data.image_set import from_batch
from vaeguard.data.split import MIN_NORMAL
from vaeguard.errors import RefusedError
from vaeguard.settings.choice import with_features
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.engines.inspection import Inspection
    from vaeguard.engines.torch_detector import TorchDetector

    Doubles = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

FEW_ROWS = 100
"""With fewer rows, a tenth of them is too few to shape or rank a score."""


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """The part that both conventions share: parameters, fit, and scores with higher = more anomalous."""

    def __init__(
        self,
        *,
        contamination: float = 0.1,
        kind: str | None = ModelSpec.kind,
        latent: int | None = None,
        hidden: tuple[int, ...] | None = None,
        epochs: int | None = TrainSpec.epochs,
        batch_size: int | None = TrainSpec.batch_size,
        learning_rate: float | None = TrainSpec.learning_rate,
        beta: float = TrainSpec.beta,
        guided: bool = False,
        image_shape: tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = TrainSpec.device,
    ) -> None:
        self.contamination = contamination
        self.kind = kind
        self.latent = latent
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.beta = beta
        self.guided = guided
        self.image_shape = image_shape
        self.random_state = random_state
        self.device = device

    image_shape_: tuple[int, ...] | None

    def fit(self, X: Any, y: Any = None, **others: Any) -> Self:  # noqa: N803
        """Fit the model on `X`, and set the threshold so that a share `contamination` of the rows is above it.

        Parameters
        ----------
        X : array (n, F), or images (n, H, W), (n, C, H, W) or (n, H, W, C)
            A table of floats in any units; or images, uint8 or floats in [0, 1], also flat with `image_shape`.
        y : array (n,), optional
            The classes of the rows for a `guided` model; ignored otherwise.

        Returns
        -------
        The fitted estimator.

        Raises
        ------
        TypeError
            Other parameters are given, such as `sample_weight`, which are not supported.
        ValueError
            `X`, `y` or a parameter cannot work.
        VaeguardError
            Training diverged.
        """
        if others:
            # With a parameter `sample_weight`, scikit-learn would take weights for supported.
            raise TypeError(
                f"{type(self).__name__}.fit does not take {', '.join(others)}, because every row has the same weight;"
                " to weight rows, leave out or repeat some of them"
            )
        if not isinstance(self.contamination, int | float | np.floating) or not 0 < self.contamination <= 0.5:
            raise ValueError(f"`contamination` is {self.contamination!r}; it must be above 0 and at most 0.5")
        if self.guided and y is None:
            raise ValueError("`guided` needs `y`, the classes of the rows; give `y`, or remove `guided`")
        batch = self._batch(X, reset=True)
        self.detector_ = self._fitted(batch, _classes(y) if self.guided else None)
        self.decision_scores_ = self.detector_.inspect(batch).score.astype(np.float64)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.offset_ = -self.threshold_
        self.labels_ = self._above_threshold(self.decision_scores_)
        return self

    def p_value(self, X: Any) -> Doubles:  # noqa: N803
        """The share of held-out training rows that are at least as strange, in (0, 1], shape (n,).

        Flagging `p_value(X) <= rate` gives that false-alarm rate if the training data are normal and have at least 100
        rows, or 20 photographs. Anomalies among them make p-values larger. With fewer rows, none is held out, and
        p-values are too small.
        """
        return self._inspect(X).p_value.astype(np.float64)

    def terms(self, X: Any) -> dict[str, Doubles]:  # noqa: N803
        """Every term of the score by name, each (n,), higher = more anomalous (see `models.graph.InferenceGraph`)."""
        terms = self._inspect(X).terms
        return {name: values.astype(np.float64) for name, values in terms.items()}

    def _anomaly_scores(self, X: Any) -> Doubles:  # noqa: N803
        return self._inspect(X).score.astype(np.float64)

    def _above_threshold(self, scores: Doubles) -> Integers:
        return (scores > self.threshold_).astype(np.int64)

    def _inspect(self, X: Any) -> Inspection:  # noqa: N803
        batch = self._batch(X, reset=False)  # checks first that there is a detector
        return self.detector_.inspect(batch)

    def _batch(self, X: Any, *, reset: bool) -> npt.NDArray[Any]:  # noqa: N803
        """Check `X` and bring it to the form that the detector takes, (n, C, H, W); `reset` is true in a fit."""
        if not reset:
            check_is_fitted(self)
        if not hasattr(X, "shape"):
            X = np.asarray(X)  # noqa: N806
        shape = self._shape_of_images(X, reset=reset)
        if len(X.shape) > 2:
            X = X.reshape(len(X), -1)  # noqa: N806
        least, types = (2 if reset else 1), (None if shape else (np.float64, np.float32))
        rows = validate_data(self, X, reset=reset, dtype=types, ensure_min_samples=least)
        if reset:
            self.image_shape_ = shape
        try:
            batch = as_batch(rows.reshape(len(rows), *shape) if shape else rows, "X")
        except RefusedError as error:
            raise ValueError(str(error)) from error
        if reset and not shape:
            warn_of_rounding(rows, "X")
        return batch

    def _shape_of_images(self, X: Any, *, reset: bool) -> tuple[int, ...] | None:  # noqa: N803
        """The shape of one image of `X`, or None for a table."""
        shape = self.image_shape if reset else self.image_shape_
        if shape is not None and not isinstance(shape, tuple | list):
            raise ValueError(f"`image_shape` is {shape!r}; give (H, W), (C, H, W) or (H, W, C)")
        if len(X.shape) > 2:
            if not reset and X.shape[1:] != shape:
                raise ValueError(
                    f"X contains images of shape {X.shape[1:]}, but the model was fitted on {shape or 'a table'}"
                )
            shape = X.shape[1:]
        return tuple(shape) if shape else None

    def _fitted(self, batch: npt.NDArray[Any], y: Any) -> TorchDetector:
        from vaeguard.training.loop import TrainingWarning
        from vaeguard.workflows.fit import fit

        hidden = tuple(self.hidden) if isinstance(self.hidden, list | np.ndarray) else self.hidden
        model = ModelSpec(kind=self.kind, latent=self.latent, hidden=hidden, guided=self.guided)
        training = self._training()
        # The split needs enough rows for every part. Few rows are repeated, so that each is in all parts: a score
        # calibrated on all rows, though trained on, beats one calibrated on a handful of held-out rows. The images of a
        # model of features are held out by folds, over which no image may be repeated.
        features = with_features(model, training, (batch.shape[1], batch.shape[2], batch.shape[3])).features
        repeats = -(-(MIN_NORMAL if features else FEW_ROWS) // len(batch))
        try:
            image_set = from_batch(batch, y).select(np.tile(np.arange(len(batch)), repeats))
        except RefusedError as error:
            raise ValueError(str(error)) from error
        with warnings.catch_warnings():
            # A search would repeat the warning of an unused latent in every fold; detector_ records it.
            warnings.simplefilter("ignore", TrainingWarning)
            return fit(image_set, model=model, training=training)

    def _training(self) -> TrainSpec:
        state = self.random_state
        seed = TrainSpec.seed if state is None else state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        return TrainSpec(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            beta=self.beta,
            seed=int(seed),
            device=self.device,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The state with the model as the bytes of a sealed model file, whose digest is checked on unpickling."""
        state = dict(super().__getstate__())
        if "detector_" in state:
            from vaeguard.engines.model_file import save

            with tempfile.TemporaryDirectory() as folder:
                state["detector_"] = save(state["detector_"], folder).read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "detector_" in state:
            from vaeguard.engines.model_file import read_model

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                path.write_bytes(state["detector_"])
                # A model fitted on a GPU can also be read on a machine without one.
                state = {**state, "detector_": read_model(path, "cpu" if state["device"] == "cpu" else "auto")}
        super().__setstate__(state)


class VAEDetector(OutlierMixin, _Estimator):  # type: ignore[misc]
    """A VAE as scikit-learn's outlier detector: `predict` gives −1 for anomalies, and higher scores are more normal.

    The model scales the columns of a table itself, and whitens them if there are more columns than rows. If `X` has
    fewer than 100 rows, none is held out: every row is used to train the model, and to shape and rank the score.
    Photographs, images of at least 96 pixels a side, are learned by the features of a pretrained network unless `kind`
    is given; from 20 photographs on, all train the model, and each is ranked by a model that has not seen it.

    `predict` follows scikit-learn's convention: the threshold flags a share `contamination` of the training rows. The
    model knows these rows better than new ones, so it flags more of the new normal rows, and many more if there are few
    training rows. With `contamination=0.05` and 8 independent Gaussian features, it flags 59 % of 4,000 fresh rows
    after 60 training rows, 14 % after 300 and 9 % after 1,000 (means of six draws). If a false-alarm rate has to hold,
    flag `p_value(X) <= rate` instead: at 0.05, this flags none, 2 % and 4 % of the same rows.

    Parameters
    ----------
    contamination : float
        Share of the training rows that the threshold flags, above 0 and at most 0.5.
    kind : {"mlp", "conv"}, optional
        The kind of model; by default `conv` for images of at least 16x16 pixels, otherwise `mlp`.
    latent : int, optional
        Size of the latent; by default 64 for images, half the features of a table and at most 64 (32 if whitened).
    hidden : tuple of int, optional
        Hidden sizes of an `mlp`; by default (400, 400) for images, (64, 32) for tables, (256, 128) if whitened.
    epochs : int, optional
        The most epochs; by default as in `vaeguard.TrainSpec`, for tables at most 30.
    batch_size, learning_rate, beta, device
        As in `vaeguard.TrainSpec`, with the same defaults.
    guided : bool
        Whether the model also learns to tell the classes `y` of the rows apart.
    image_shape : tuple of int, optional
        (H, W), (C, H, W) or (H, W, C) of images that are flat rows, as in pipelines.
    random_state : int, RandomState, optional
        Seed of split, weights, order and noise; None is the library's seed, which never changes.

    Attributes
    ----------
    detector_ : TorchDetector
        The fitted model: `detector_.inspect` gives its terms, `vaeguard.save` writes it.
    decision_scores_ : float64 (n,)
        Anomaly scores of the training rows, 0 and up; higher = more anomalous.
    threshold_ : float
        Rows with a higher score are anomalous.
    labels_ : int64 (n,)
        1 for training rows above the threshold, 0 for the others.
    offset_ : float
        The negative threshold: `decision_function` is `score_samples - offset_`.
    image_shape_ : tuple of int or None
        Shape of one image of the training data; None for tables.
    n_features_in_ : int
        Number of features, or of values in an image.
    feature_names_in_ : array (n_features,)
        Names of the features, if `X` had names.
    """

    def score_samples(self, X: Any) -> Doubles:  # noqa: N803
        """The negative anomaly score, 0 and below, shape (n,): higher = more normal."""
        return -self._anomaly_scores(X)

    def decision_function(self, X: Any) -> Doubles:  # noqa: N803
        """`score_samples` minus `offset_`, shape (n,): negative = anomalous, higher = more normal."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Integers:  # noqa: N803
        """−1 for anomalous rows, +1 for normal ones, shape (n,)."""
        return 1 - 2 * self._above_threshold(self._anomaly_scores(X))


class PyODDetector(_Estimator):
    """The same detector in PyOD's convention: scores are higher for anomalies, and `predict` gives 1 for them.

    It can replace a PyOD detector. Parameters and attributes are those of `VAEDetector`. Scikit-learn's tools for
    outlier detectors expect the opposite signs; use `VAEDetector` for them.

    Attributes
    ----------
    decision_scores_, threshold_, labels_, n_features_in_, feature_names_in_
        These and the other attributes are as in `VAEDetector`.
    """

    def decision_function(self, X: Any) -> Doubles:  # noqa: N803
        """The anomaly score, 0 and up, shape (n,): higher = more anomalous; above `threshold_`, a row is flagged."""
        return self._anomaly_scores(X)

    def predict(self, X: Any) -> Integers:  # noqa: N803
        """1 for anomalous rows, 0 for normal ones, shape (n,)."""
        return self._above_threshold(self._anomaly_scores(X))

    def fit_predict(self, X: Any, y: Any = None) -> Integers:  # noqa: N803
        """Fit on `X`; 1 for its anomalous rows, 0 for the others, shape (n,)."""
        return self.fit(X, y).labels_

    def predict_proba(self, X: Any) -> Doubles:  # noqa: N803
        """The score scaled from 0 to 1 between the training rows' least and greatest, shape (n, 2): normal, anomalous.

        It is PyOD's "linear" method, which ranks rows but is no calibrated probability; see `p_value`.
        """
        scores = self._anomaly_scores(X)
        low, high = self.decision_scores_.min(), self.decision_scores_.max()
        anomalous = np.clip((scores - low) / (high - low or 1), 0, 1)
        return np.stack([1 - anomalous, anomalous], 1)


def _classes(y: Any) -> npt.NDArray[Any]:
    """Classes as an array; the names in a data frame, which are Python objects, become text."""
    classes = np.asarray(y)
    return classes.astype(str) if classes.dtype == object else classes
