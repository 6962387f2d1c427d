"""`mill_weighing` waits: what ends the wait is a slip, its patience, or the client."""

import asyncio
import json
from pathlib import Path

import pytest
from headrace.tasks import PermanentError, TransientError
from headrace.testing import FakeContext, run_task

from mill_orders import weighing
from mill_orders.weighing import Truck, mill_weighing


@pytest.fixture
def slips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weighing, "SLIPS", tmp_path)
    monkeypatch.setattr(weighing, "LOOK_SECONDS", 0.001)
    return tmp_path


def test_a_truck_that_was_weighed_is_not_waited_for(slips: Path) -> None:
    (slips / "17.json").write_text(json.dumps({"full_kg": 18_240, "empty_kg": 11_400}))
    run = run_task(mill_weighing, {"number": 17}, attempt=2)
    assert run.result == {"number": 17, "grain_kg": 6840, "attempt": 2}
    assert run.progress == []


def test_the_slip_is_read_when_it_comes(slips: Path) -> None:
    class Scale(FakeContext):
        """Weighs the truck when the handler says that it waits."""

        def progress(self, fraction: float, message: str = "") -> None:
            super().progress(fraction, message)
            (slips / "17.json").write_text(json.dumps({"full_kg": 300, "empty_kg": 100}))

    context = Scale()
    assert asyncio.run(mill_weighing(Truck(number=17), context)).grain_kg == 200
    assert [report.message for report in context.reports] == ["waiting for the truck"]


@pytest.mark.usefixtures("slips")
def test_a_truck_that_does_not_come_is_tried_again() -> None:
    with pytest.raises(TransientError, match="No slip for order 17") as raised:
        run_task(mill_weighing, {"number": 17, "patience": 0.01})
    assert raised.value.code == "not_weighed"


@pytest.mark.parametrize("text", ["", '{"full_kg": 1}', '{"full_kg": 1, "empty_kg": 2}'])
def test_a_slip_that_makes_no_sense_is_not_tried_again(slips: Path, text: str) -> None:
    (slips / "17.json").write_text(text)
    with pytest.raises(PermanentError) as raised:
        run_task(mill_weighing, {"number": 17})
    assert raised.value.code == "bad_slip"


@pytest.mark.usefixtures("slips")
def test_a_cancel_ends_the_wait() -> None:
    class Client(FakeContext):
        """Cancels the task when it reads that the handler waits."""

        def progress(self, fraction: float, message: str = "") -> None:
            handler = asyncio.current_task()
            assert handler is not None
            handler.cancel()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(mill_weighing(Truck(number=17), Client()))
