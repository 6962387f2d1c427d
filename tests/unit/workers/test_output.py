"""The output of attempts is told apart by marks, wherever the reads fall."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.workers.attempt_logs import LOG_BYTES_MAX, AttemptLogs, rendered
from execution_service.workers.frames import LogLine
from execution_service.workers.marks import MARK_END, OutputMarks, mark_beginning
from execution_service.workers.output import WorkerOutput
from execution_service.workers.slots_page import SlotsPage

SECRET = "5ec2e7"


class Pipe:
    """A worker's output with both of its ends."""

    def __init__(self) -> None:
        read_fd, self.write_fd = os.pipe()
        self.page = SlotsPage.create(1)
        self.output = WorkerOutput("w1", read_fd, page=self.page, secret=SECRET)

    def write(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    def close(self) -> None:
        self.output.close()
        self.page.close()
        os.close(self.write_fd)


def mark(seq: int) -> bytes:
    return b"%s%d%s" % (mark_beginning(SECRET), seq, MARK_END)


@given(
    texts=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    cuts=st.lists(st.integers(min_value=0, max_value=200), max_size=6),
)
def test_sections_do_not_depend_on_where_reads_end(texts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(text + mark(seq) for seq, text in enumerate(texts, 1))
    pipe = Pipe()
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        pipe.write(stream[start:end])
        pipe.output.read()
    assert [pipe.output.section(seq) for seq in range(1, len(texts) + 1)] == texts
    assert not pipe.page.unmarked
    pipe.close()


def test_only_the_end_of_a_long_output_is_kept() -> None:
    pipe = Pipe()
    for _ in range(20):
        pipe.write(b"a" * 10_000)
        pipe.output.read()
    pipe.write(b"end" + mark(1))
    section = pipe.output.section(1)
    assert len(section) == LOG_BYTES_MAX
    assert section.endswith(b"aend")
    pipe.close()


def test_what_has_no_mark_is_the_rest() -> None:
    pipe = Pipe()
    pipe.write(b"one" + mark(1) + b"two \x1e not a mark")
    pipe.output.read()
    assert pipe.page.unmarked
    assert pipe.output.section(1) == b"one"
    pipe.write(b"\n")
    pipe.output.read()
    assert pipe.output.rest() == b"two \x1e not a mark\n"
    pipe.close()


def test_a_mark_is_written_only_where_there_was_output(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    saved = os.dup(2)
    try:
        os.dup2(pipe.write_fd, 2)
        marks = OutputMarks(pipe.page, SECRET)
        assert not marks.end(1)
        os.write(2, b"waits in the pipe")
        assert marks.end(2)
        assert pipe.output.section(2) == b"waits in the pipe"
        assert not marks.end(3)
        os.write(2, b"was read before its end")
        pipe.output.read()
        assert marks.end(4)
        assert pipe.output.section(4) == b"was read before its end"
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    pipe.close()


def test_logged_lines_are_readable() -> None:
    logs = AttemptLogs()
    logs.add((7, 1), rendered(LogLine(7, 1, 0.25, "warning", "late", '{"minutes": 3, "traceback": "Trace\\nback\\n"}')))
    logs.add((7, 1), rendered(LogLine(7, 1, 0.5, "output", "printed \0", "{}")))
    logs.add((7, 1), rendered(LogLine(7, 1, 0.75, "info", "odd", "no json")))
    assert logs.take((7, 1)).splitlines() == [
        "1970-01-01T00:00:00.250Z warning late minutes=3",
        "Trace",
        "back",
        "printed ?",
        "1970-01-01T00:00:00.750Z info odd fields='no json'",
    ]
    assert logs.take((7, 1)) == ""
