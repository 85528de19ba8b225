"""A file is whole or not there."""

import pytest

from kinetograph import files
from kinetograph.errors import CannotWrite


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "a").write_text("old")
    files.write(tmp_path / "a", "né")
    assert (tmp_path / "a").read_bytes() == "né".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_fails_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise error

    with pytest.raises(error):
        files.fill(tmp_path / "a", half)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_the_system_refuses_is_named_with_the_folder(tmp_path):
    with pytest.raises(CannotWrite, match="nowhere") as error:
        files.write(tmp_path / "nowhere" / "a", b"")
    assert "make it first" in error.value.hint
