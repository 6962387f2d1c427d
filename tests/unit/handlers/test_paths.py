"""No name leads out of its folder: not by what it says, not by what lies on its way, not by what is swapped there."""

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from execution_service.handlers.paths import check_names, create_below, open_below, unsafe_reason
from headrace.tasks import PermanentError


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "../../etc/passwd",
        "a/../../b",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "~root",
        "",
        "a//b",
        "a/./b",
        ".",
        "a/",
        "%2e%2e/x",
        "a%2Fb",
        "..\\x",
        "C:\\x",
        "c:x",
        "a\0b",
        "trailing.",
        "trailing ",
        " leading",
        "con",
        "a/NUL.txt",
        "com1",
        "what?",
        "x" * 201,
        "x" * 5000,
        "/".join("abcdefghi"),
    ],
)
def test_t44_unsafe_names_are_refused(name: str, tmp_path: Path) -> None:
    for refuse in (lambda: check_names([name]), lambda: open_below(tmp_path, name)):
        with pytest.raises(PermanentError) as refused:
            refuse()
        assert refused.value.code == "unsafe_path"


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\u2028b", "a\u202eb", "a\u061cb", "a\ud800b", "ä" * 101, "\x7f"])
def test_t53_names_that_cannot_be_shown_or_stored_everywhere_are_refused(name: str) -> None:
    assert unsafe_reason(name) is not None


@pytest.mark.parametrize(
    "names",
    [["a", "a"], ["A", "a"], ["a", "a/b"], ["a/b", "a"], ["x/y/z", "X"], ["Straße", "STRASSE"], ["é", "e\u0301"]],
)
def test_names_that_get_into_each_others_way_are_refused(names: list[str]) -> None:
    with pytest.raises(PermanentError) as refused:
        check_names(names)
    assert refused.value.code == "unsafe_path"


def test_ordinary_names_are_taken() -> None:
    check_names(["a.txt", "b/a.txt", "b/c/d e.tar.gz", ".hidden", "größe/файл", "console", "b/c/d"])


def test_the_refusal_of_a_long_name_shows_only_its_beginning() -> None:
    with pytest.raises(PermanentError) as refused:
        check_names(["secret" * 1000])
    assert len(str(refused.value)) < 200


def _read(folder: Path, name: str) -> bytes:
    with open(open_below(folder, name), "rb") as file:
        return file.read()


def _refusal(folder: Path, name: str) -> str:
    with pytest.raises(PermanentError) as refused:
        open_below(folder, name)
    return refused.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file in it, beside a file and a folder that are not to be reached."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "inputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.csv").write_text("inside")
    return folder


def test_a_file_below_the_folder_is_opened_also_where_the_folder_is_a_link(folder: Path, tmp_path: Path) -> None:
    assert _read(folder, "sub/a.csv") == b"inside"
    (tmp_path / "link").symlink_to(folder)
    assert _read(tmp_path / "link", "sub/a.csv") == b"inside"


def test_opening_leaves_no_descriptor_behind(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in ("sub/a.csv/b", "sub/missing", "sub", "missing/a"):
        _refusal(folder, name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_t45_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "file-link").symlink_to(tmp_path / "secret")
    (folder / "folder-link").symlink_to(tmp_path)
    (folder / "inner-link").symlink_to("sub")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "hard-link").hardlink_to(tmp_path / "secret")
    for name in ("file-link", "folder-link/secret", "inner-link/a.csv", "dangling", "hard-link"):
        assert _refusal(folder, name) == "unsafe_path", name


def test_t45_what_is_mounted_below_the_folder_is_refused() -> None:
    assert os.stat("/proc").st_dev != os.stat("/").st_dev
    assert _refusal(Path("/"), "proc/version") == "unsafe_path"


@contextlib.contextmanager
def _swapping(place: Path, one: Path, other: Path) -> Iterator[None]:
    """Have `place` be one thing and the other by turns, as fast as renaming goes."""
    stopped = threading.Event()

    def swap() -> None:
        while not stopped.is_set():
            one.rename(place)
            place.rename(one)
            other.rename(place)
            place.rename(other)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("name", ["swapped/secret", "swapped"])
def test_t45_what_is_swapped_for_a_link_while_it_is_opened_never_leads_out(
    name: str, folder: Path, tmp_path: Path
) -> None:
    place, genuine, link = (folder / part for part in ("swapped", "genuine", "link"))
    if name == "swapped":
        genuine.write_text("inside")
        link.symlink_to(tmp_path / "secret")
    else:
        genuine.mkdir()
        (genuine / "secret").write_text("inside")
        link.symlink_to(tmp_path)
    opened, refused = 0, {"unsafe_path": 0, "file_not_found": 0}
    began = time.monotonic()
    with _swapping(place, genuine, link):
        while (passed := time.monotonic() - began) < 0.5 or (passed < 10 and not min(opened, *refused.values())):
            try:
                content = _read(folder, name)
            except PermanentError as error:
                refused[error.code] += 1
            else:
                assert content == b"inside"
                opened += 1
    # All three were met: the race took place.
    assert min(opened, *refused.values()) > 0


def test_t44_what_is_no_regular_file_is_refused_without_waiting_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    # The name of a socket is short, wherever the test runs.
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
        listener.bind("socket")
        for name in ("pipe", "socket", "sub"):
            assert _refusal(folder, name) == "unsafe_path", name
    assert _refusal(Path("/dev"), "zero") == "unsafe_path"


def test_t46_a_missing_file_and_a_file_for_a_folder_have_their_codes(folder: Path) -> None:
    assert _refusal(folder, "missing.csv") == "file_not_found"
    assert _refusal(folder, "missing/a.csv") == "file_not_found"
    assert _refusal(folder, "sub/a.csv/b") == "unsafe_path"


def test_t46_a_file_that_may_not_be_read_has_its_code() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed.csv").touch(mode=0o000)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # what root may not read there is not
        try:
            assert _refusal(folder, "closed.csv") == "file_not_readable"
        finally:
            os.seteuid(user)


def test_a_folder_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_below(tmp_path / "missing", "a.csv")


def _create(folder: Path, name: str, content: bytes) -> None:
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(create_below(root, name), "wb") as file:
            file.write(content)
    finally:
        os.close(root)


def test_files_are_created_with_the_folders_on_their_way(tmp_path: Path) -> None:
    _create(tmp_path, "a/b/c.txt", b"1")
    _create(tmp_path, "a/b/d.txt", b"2")
    assert (tmp_path / "a/b/c.txt").read_bytes() + (tmp_path / "a/b/d.txt").read_bytes() == b"12"


def test_nothing_is_created_through_a_link_or_over_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "new")
    (folder / "old").write_text("old")
    for name, error in (("link/new", OSError), ("file", FileExistsError), ("old", FileExistsError), ("old/x", OSError)):
        with pytest.raises(error):
            _create(folder, name, b"!")
    with pytest.raises(PermanentError):
        _create(folder, "../new", b"!")
    assert not (tmp_path / "new").exists()
    assert (folder / "old").read_text() == "old"
