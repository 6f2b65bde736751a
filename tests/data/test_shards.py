"""Sets that are larger than the disk: images stay in tar archives and Parquet files and are read in every epoch."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainSpec, UsageError
from vaeguard.data import shards as shards_module
from vaeguard.data.data_sets import open_to_learn
from vaeguard.data.images import ImageRule
from vaeguard.data.shards import Limits, in_shards
from vaeguard.training.plan import plan_fit

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")

SMALL = ModelSpec(kind="mlp", hidden=(16,), latent=3)
QUICK = TrainSpec(epochs=4, batch_size=32, device="cpu")
TINY = Limits(1, 64 * 64)
"""Nothing is fit into the cache, and 64 images are mixed at a time."""


def packed(folder, kind, *, broken=()):
    """The bars in random order in three files; images whose numbers are `broken` cannot be read."""
    images, labels = bars()
    order = np.random.default_rng(2).permutation(len(images))
    for number, part in enumerate(np.array_split(order, 3)):
        contents = [b"no image" if row in broken else png(images[row, 0]) for row in part]
        if kind == "parquet":
            table = pa.table({"image": contents, "label": [f"c{labels[row]}" for row in part]})
            parquet.write_table(table, folder / f"{number}.parquet", row_group_size=16)
            continue
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for row, content in zip(part, contents, strict=True):
                member = tarfile.TarInfo(f"c{labels[row]}/{row:03d}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(folder / f"*.{kind}"), images[order], labels[order]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_an_epoch_has_every_readable_image_once_in_random_order(tmp_path, kind):
    data, images, _ = packed(tmp_path, kind, broken=(5,))
    opened = open_to_learn(data, TINY, rule=ImageRule())
    shards = in_shards(opened.images)
    assert len(opened.errors) == 1
    assert "are read from their files" in opened.note
    np.testing.assert_array_equal(shards[shards.held], images[shards.held])
    assert [opened.paths[row].startswith(str(tmp_path)) for row in (0, -1)] == [True, True]
    wanted, count = np.arange(0, len(images), 2), len(shards.held[shards.held % 2 == 0])
    epochs = [[*shards.stream(wanted, 2 * count, 20, seed)] for seed in (0, 0, 1)]
    rows, again, other = (np.concatenate([some.rows for some in epoch]) for epoch in epochs)
    assert {len(some.rows) for some in epochs[0][:-1]} == {20}
    for part in (rows[:count], rows[count:], other[:count]):
        np.testing.assert_array_equal(np.sort(part), shards.held[shards.held % 2 == 0])
    np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(rows, other)
    assert not np.array_equal(rows[:count], np.sort(rows[:count]))
    np.testing.assert_array_equal(np.concatenate([some.images for some in epochs[0]]), images[rows])


def test_images_outside_the_sample_that_cannot_be_read_are_listed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "HELD", 40)
    monkeypatch.setattr(shards_module, "LEAST", 40)
    data, images, _ = packed(tmp_path, "parquet", broken=range(0, 120, 3))
    opened = open_to_learn(data, TINY, rule=ImageRule())
    shards = in_shards(opened.images)
    assert 0 < len(opened.errors) < 40
    list(shards.stream(np.arange(len(images)), 2 * len(images), 20, 0))
    assert len(shards.errors) == 40
    assert shards.errors.items() >= dict(opened.errors).items()


def test_a_set_that_fits_is_decoded_into_the_cache(tmp_path):
    data, images, _ = packed(tmp_path, "parquet")
    opened = open_to_learn(data, Limits(), rule=ImageRule())
    np.testing.assert_array_equal(opened.images, images)
    assert opened.note is None


@pytest.mark.slow
def test_a_fit_from_files_tells_anomalies_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    data, _, _ = packed(tmp_path, "parquet")
    images = open_to_learn(data, TINY, rule=ImageRule())
    training = replace(QUICK, epochs=12, learning_rate=5e-3)

    def fit(name, **how):
        return vaeguard.fit(images, normal_classes="0,1", model=SMALL, training=training, run=tmp_path / name, **how)

    whole = fit("whole")
    fresh, labels = bars(120, seed=5)
    score = whole.inspect(fresh).score
    assert np.median(score[labels == 2]) > np.quantile(score[labels != 2], 0.9)
    assert whole.info.record.model.pseudo_classes > 0
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total / 2:
            raise SystemError

    with pytest.raises(SystemError):
        fit("killed", progress=kill)
    resumed = fit("killed", resume=True)
    for one, two in zip(whole.graph.state_dict().values(), resumed.graph.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_judging_images_can_be_looked_up_and_no_other_image_is_missing(tmp_path):
    data, _, labels = packed(tmp_path, "tar")
    images = open_to_learn(data, TINY, rule=ImageRule())
    split = plan_fit(images, None, None, "0,1", SMALL, QUICK).split
    held = in_shards(images.images).held
    assert np.isin(np.concatenate([split.validation, split.calibration]), held).all()
    parts = np.concatenate([split.training, split.validation, split.calibration])
    np.testing.assert_array_equal(np.sort(parts), np.flatnonzero(labels != 2))
    looked_up = plan_fit(images, None, None, "0,1", ModelSpec(patch=4), QUICK).split
    assert np.isin(looked_up.training, held).all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"groups": np.zeros(240)}, "`groups`"),
        ({"balance": True}, "`groups`"),
        ({"roi": np.eye(8, dtype=bool)}, "`roi`"),
    ],
)
def test_what_needs_all_images_at_hand_is_refused(tmp_path, how, said):
    data, _, _ = packed(tmp_path, "parquet")
    with pytest.raises(UsageError, match=f"^{said}.* fit into the cache"):
        vaeguard.fit(open_to_learn(data, TINY, rule=ImageRule()), model=SMALL, training=QUICK, **how)
