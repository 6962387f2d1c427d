"""An archive unpacks to just its files, or is refused; whatever is in it, nothing else comes to be."""

import gzip
import hashlib
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.archives import ArchiveLimits, UnpackedFile, unpack
from headrace.tasks import PermanentError, TransientError
from tests.support.file_size import file_size_limit

_LIMITS = ArchiveLimits(files=20, total_bytes=1_000_000, ratio=50)


def _file(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member, b""


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _with_header(tar: bytes, start: int, field: bytes) -> bytes:
    """Change the first header, and its checksum with it."""
    header = bytearray(tar[:512])
    header[start : start + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + tar[512:]


def _unpack(content: bytes, tmp_path: Path, limits: ArchiveLimits = _LIMITS) -> dict[str, bytes]:
    """Unpack and return what came to be; what `on_file` was told must be the same."""
    archive, folder = tmp_path / "archive.tar.gz", tmp_path / "unpacked"
    archive.write_bytes(content)
    folder.mkdir()
    told: list[UnpackedFile] = []
    unpack(archive, folder, limits, told.append)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {file.name: (file.bytes, file.sha256) for file in told} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in found.items()
    }
    return found


def _refusal(content: bytes, tmp_path: Path, limits: ArchiveLimits = _LIMITS) -> str:
    """Return the code with which an archive is refused, having seen that it left nothing but whole files."""
    with pytest.raises(PermanentError) as refused:
        _unpack(content, tmp_path, limits)
    assert {path.name for path in tmp_path.iterdir()} == {"archive.tar.gz", "unpacked"}
    for path in (tmp_path / "unpacked").rglob("*"):
        assert path.is_dir() or (path.is_file() and path.read_bytes() == b"content"), path
    return refused.value.code


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "names",
    [["a"], ["a/b/c.txt", "a/b/d", "e"], ["n" * 60 + "/" + "m" * 90], []],
    ids=["one", "folders", "long", "none"],
)
def test_files_are_unpacked(form: int, names: list[str], tmp_path: Path) -> None:
    contents = {name: os.urandom(100 * index) for index, name in enumerate(names)}
    archive = gzip.compress(_tar(*(_file(name, content) for name, content in contents.items()), form=form))
    assert _unpack(archive, tmp_path) == contents


def test_names_that_need_a_header_of_their_own_are_read(tmp_path: Path) -> None:
    names = ["größe/файл", "x" * 150]
    assert set(_unpack(gzip.compress(_tar(*map(_file, names))), tmp_path)) == set(names)


_OUTSIDE = "/tmp/headrace-test-outside"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        pytest.param([_file("../x")], "unsafe_path", id="T50-parent"),
        pytest.param([_file("a/../../x")], "unsafe_path", id="T50-parent-inside"),
        pytest.param([_file(_OUTSIDE)], "unsafe_path", id="T50-absolute"),
        pytest.param([_file("C:/x")], "unsafe_path", id="T50-drive"),
        pytest.param([_file("..\\x")], "unsafe_path", id="T50-backslash"),
        pytest.param([_file("a\nb")], "unsafe_path", id="T53-newline"),
        pytest.param([_file("")], "unsafe_path", id="T50-no-name"),
        pytest.param([_special("link", tarfile.SYMTYPE, "/etc/passwd")], "unsafe_archive", id="T50-symlink"),
        pytest.param(
            [_special("link", tarfile.SYMTYPE, ".."), _file("link/x")], "unsafe_archive", id="T50-file-through-symlink"
        ),
        pytest.param([_special("link", tarfile.LNKTYPE, "/etc/passwd")], "unsafe_archive", id="T50-hard-link"),
        pytest.param([_special("null", tarfile.CHRTYPE)], "unsafe_archive", id="T50-device"),
        pytest.param([_special("disk", tarfile.BLKTYPE)], "unsafe_archive", id="T50-block-device"),
        pytest.param([_special("pipe", tarfile.FIFOTYPE)], "unsafe_archive", id="T50-pipe"),
        pytest.param([_special("folder", tarfile.DIRTYPE)], "unsafe_archive", id="T50-folder"),
        pytest.param([_special("sparse", tarfile.GNUTYPE_SPARSE)], "unsafe_archive", id="T51-sparse"),
        pytest.param([_special("rest", b"M")], "unsafe_archive", id="T52-multi-volume"),
        pytest.param([_file("a"), _file("a")], "unsafe_path", id="T50-duplicate"),
        pytest.param([_file("a"), _file("A")], "unsafe_path", id="T50-case-clash"),
        pytest.param([_file("a"), _file("a/b")], "unsafe_path", id="T50-file-as-folder"),
        pytest.param([_file("d/" * 9 + "x")], "unsafe_path", id="T50-nested-9"),
        pytest.param([_file("d/" * 10_000 + "x")], "unsafe_archive", id="T50-nested-10000"),
        pytest.param([_file(f"{number}") for number in range(21)], "unsafe_archive", id="T51-too-many"),
        pytest.param([_file("a", bytes(1_000_001))], "unsafe_archive", id="T51-too-large"),
        pytest.param([_file("a", b"content"), _file("b", bytes(999_994))], "unsafe_archive", id="T51-too-large-in-all"),
    ],
)
def test_hostile_members_are_refused(members: list[tuple[tarfile.TarInfo, bytes]], code: str, tmp_path: Path) -> None:
    assert _refusal(gzip.compress(_tar(*members)), tmp_path) == code
    assert not Path(_OUTSIDE).exists()


def test_t51_what_a_small_archive_unpacks_to_is_counted_while_it_is_written(tmp_path: Path) -> None:
    bomb = gzip.compress(_tar(_file("a", bytes(50_000_000))))
    assert len(bomb) < 60_000
    assert _refusal(bomb, tmp_path, ArchiveLimits(files=1, total_bytes=2**40, ratio=100)) == "unsafe_archive"


def test_t51_a_bomb_of_headers_is_refused_before_it_is_read(tmp_path: Path) -> None:
    member, content = _file("a")
    member.pax_headers = {"comment": "x" * 10_000_000}
    assert _refusal(gzip.compress(_tar((member, content))), tmp_path) == "unsafe_archive"


_ONE = _tar(_file("a"))


@pytest.mark.parametrize(
    ("tar", "code"),
    [
        pytest.param(_with_header(_ONE, 124, b"00077777777\0"), "unsafe_archive", id="T51-size-above-the-limit"),
        pytest.param(_with_header(_ONE, 124, b"00000100000\0"), "invalid_archive", id="T51-size-above-what-is-there"),
        pytest.param(_with_header(_ONE, 124, b"00000000003\0"), "invalid_archive", id="T51-size-below-what-is-there"),
        pytest.param(_with_header(_ONE, 124, b"\xff" * 12), "invalid_archive", id="T51-negative-size"),
        pytest.param(_with_header(_ONE, 124, b"\x80" + bytes(10) + b"\7"), "invalid_archive", id="T51-binary-size"),
        pytest.param(_with_header(_ONE, 0, b"\xff\xfe"), "invalid_archive", id="T53-name-not-utf8"),
        pytest.param(_with_header(_ONE, 257, b"ustar  \0"), "invalid_archive", id="T52-gnu"),
        pytest.param(_ONE[:148] + b"0000000\0" + _ONE[156:], "invalid_archive", id="T52-checksum"),
        pytest.param(_ONE[:1024], "invalid_archive", id="T52-no-end"),
        pytest.param(_ONE[:1536], "invalid_archive", id="T52-half-an-end"),
        pytest.param(_ONE + b"x", "invalid_archive", id="T52-behind-the-end"),
        pytest.param(_ONE + bytes(100_000), "invalid_archive", id="T51-endless-end"),
        pytest.param(b"", "invalid_archive", id="T52-empty"),
        pytest.param(os.urandom(2048), "invalid_archive", id="T52-noise"),
    ],
)
def test_false_headers_are_refused(tar: bytes, code: str, tmp_path: Path) -> None:
    assert _refusal(gzip.compress(tar), tmp_path) == code


def _zip(password_bit: int = 0) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", "content")
        archive.infolist()[0].flag_bits |= password_bit
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_zip(), id="zip"),
        pytest.param(_zip(password_bit=1), id="encrypted-zip"),
        pytest.param(_ONE, id="not-compressed"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x1f\x8b\x07" + gzip.compress(_ONE)[3:], id="unknown-method"),
        pytest.param(gzip.compress(_ONE)[:-8] + b"\0\0\0\0" + gzip.compress(_ONE)[-4:], id="wrong-crc"),
        pytest.param(gzip.compress(_ONE)[:-4] + b"\0\0\0\0", id="wrong-length"),
        pytest.param(gzip.compress(_ONE) + b"more", id="something-follows"),
    ],
)
def test_t52_what_is_no_whole_archive_is_invalid(content: bytes, tmp_path: Path) -> None:
    assert _refusal(content, tmp_path) == "invalid_archive"


# The same on every run, as its size is part of the names of tests.
_TWO = gzip.compress(_tar(_file("a", b"content"), _file("b/c", random.Random(1).randbytes(3000))), mtime=0)


@pytest.mark.parametrize("part", [0, 5, 100, len(_TWO) // 2, len(_TWO) - 8, len(_TWO) - 1])
def test_t52_an_archive_cut_anywhere_is_invalid(part: int, tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as refused:
        _unpack(_TWO[:part], tmp_path)
    assert refused.value.code == "invalid_archive"


@given(st.integers(0, len(_TWO) - 1), st.integers(1, 255))
def test_a_byte_that_was_changed_never_changes_what_comes_out(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    broken = bytearray(_TWO)
    broken[position] ^= change
    try:
        unpacked = _unpack(bytes(broken), tmp_path_factory.mktemp("broken"))
    except PermanentError:
        return
    # Only gzip's own time, flags and system are not covered by its checksum.
    assert 3 < position < 10
    assert unpacked == _unpack(_TWO, tmp_path_factory.mktemp("whole"))


def test_t48_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    archive, folder = tmp_path / "archive.tar.gz", tmp_path / "unpacked"
    archive.write_bytes(gzip.compress(_tar(_file("a"), _file("b/c", bytes(500_000)))))
    folder.mkdir()
    with file_size_limit(100_000), pytest.raises(TransientError) as full:
        unpack(archive, folder, _LIMITS, lambda _: None)
    assert full.value.code == "storage_full"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["a"]


def test_what_was_there_before_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "target")
    (tmp_path / "archive").write_bytes(gzip.compress(_ONE))
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "archive", folder, _LIMITS, lambda _: None)
    assert not (tmp_path / "target").exists()
    assert (folder / "a").is_symlink()
