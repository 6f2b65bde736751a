"""Which images show the same thing."""

import pytest

from vaeguard import RefusedError, UsageError
from vaeguard.data.groups import read_groups

PATHS = ("parts/good/a.png", "parts/good/b.png", "parts/good/c.png", "parts/bad/a.png")


def test_images_are_told_by_the_end_of_their_path(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("\ufeffimage,group,more\ngood/a.png,7,x\nb.png,7,x\nparts/bad/a.png,8,x\n", encoding="utf-8")
    first, second, alone, other = read_groups(str(table), PATHS)
    assert first == second
    assert len({first, alone, other}) == 3


def test_images_without_a_group_in_the_table_are_alone(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("path,group\nb.png,A\nc.png, \nbad/a.png,\n", encoding="utf-8")
    groups = read_groups(str(table), PATHS)
    assert len(set(groups)) == 4
    assert groups[1] == "A"


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("path,group\na.png,1\n", UsageError, "'a.png' in .* matches 2 images"),
        ("path,group\nd.png,1\n", UsageError, "'d.png' in .* matches no images"),
        ("path,group\nb.png,1\nb.png,2\n", UsageError, "'b.png' in .* is listed twice"),
        ("path,set\nb.png,1\n", RefusedError, "no rows with the columns path and group"),
        ("path,group\n", RefusedError, "no rows with the columns path and group"),
        (b"\xff\xfe\x00", RefusedError, "is not a CSV file"),
        (None, UsageError, "the file does not exist"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(content, kind, said, tmp_path):
    table = tmp_path / "groups.csv"
    if content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kind, match=said):
        read_groups(str(table), PATHS)
