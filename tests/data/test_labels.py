"""Tables of labels, and the images that they name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vaeguard import ImageRule, RefusedError, UsageError
from vaeguard.data.labels import Label, read_labelled, read_labels

HEAD = "path,label,flagged,audit,batch\n"


def test_labels_are_read_as_the_page_saves_them(tmp_path):
    (tmp_path / "labels.csv").write_text(HEAD + '"a, ""b"".png",Normal,1,0,7\nc.png,unsure,0,1,93\n')
    assert read_labels(str(tmp_path / "labels.csv")) == [
        Label('a, "b".png', "normal", True, False, 7, ""),
        Label("c.png", "unsure", False, True, 93, ""),
    ]
    (tmp_path / "own.csv").write_text("path,label,class\na.png,normal,good\n")
    assert read_labels(str(tmp_path / "own.csv")) == [Label("a.png", "normal", False, False, None, "good")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read `labels`"),
        (b"\xff\xfe\x00", "is not a CSV file"),
        (b"", "the file is empty"),
        (b"file,verdict\na.png,ok\n", "no rows with the columns path and label"),
        (HEAD.encode() + b"a.png,ok,1,0,7\n", "row 1: the label is 'ok'; it must be normal, defect or unsure"),
        (HEAD.encode() + b"a.png,normal,maybe,0,7\n", "row 1: flagged and audit must be 0 or 1"),
        (HEAD.encode() + b"a.png,normal,1,0,-7\n", "batch must be a number of images"),
        (HEAD.encode() + b"a.png\n", "row 1: the label is None"),
        (HEAD.encode() + b",normal,1,0,7\n", "row 1: the path is missing"),
        (HEAD.encode() + b"a.png,normal,1,0,7\na.png,defect,1,0,7\n", "lists 'a.png' twice"),
    ],
)
def test_a_broken_table_is_refused_in_one_sentence(content, said, tmp_path):
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises((RefusedError, UsageError), match=said):
        read_labels(str(tmp_path / "labels.csv"))


def test_images_are_found_in_folders_and_in_containers_and_missing_ones_are_listed(tmp_path):
    pixels = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((4, 6, 6), 10, np.uint8)
    np.save(tmp_path / "set.npy", pixels)
    Image.fromarray(pixels[3] + np.uint8(5)).save(tmp_path / "a.png")
    names = [f"{tmp_path}/set.npy/00002", f"{tmp_path}/gone.png", f"{tmp_path}/a.png", f"{tmp_path}/a.png/00001"]
    labels = [Label(name, "normal", True, False, 4, "") for name in names]
    read, images, errors = read_labelled(labels, ImageRule((6, 6), 1))
    assert [label.path for label in read] == [names[0], names[2]]
    assert images[:, 0, 0, 0].tolist() == [20, 35]
    assert [path for path, _ in errors] == [names[1], names[3]]
