"""A file is there as a whole or not at all, and a full disk has a name."""

import errno
from pathlib import Path

import pytest

from execution_service.handlers.storage import new_file
from headrace.tasks import TransientError
from tests.support.file_size import file_size_limit


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with new_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_of_a_block_that_fails_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with new_file(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(tmp_path: Path, number: int) -> None:
    with pytest.raises(TransientError) as full, new_file(tmp_path / "a.txt"):
        raise OSError(number, "full")
    assert full.value.code == "storage_full"


@pytest.mark.parametrize("size", [1000, 100_000], ids=["found when the file is closed", "found while it is written"])
def test_t48_a_file_that_the_kernel_refuses_to_extend_is_removed(tmp_path: Path, size: int) -> None:
    with file_size_limit(size // 2), pytest.raises(TransientError) as full, new_file(tmp_path / "a.txt") as file:
        file.write(bytes(size))
    assert full.value.code == "storage_full"
    assert list(tmp_path.iterdir()) == []
