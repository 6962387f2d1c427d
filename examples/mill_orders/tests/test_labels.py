"""`mill_labels` says how far it is, uses its scratch directory, and stops when it is asked to."""

import base64
from pathlib import Path

import pytest
from headrace.tasks import PermanentError
from headrace.testing import run_task
from PIL import Image
from pydantic import ValidationError

from mill_orders.labels import PressStoppedError, mill_labels

ORDER = {"number": 17, "customer": "Bakery Pretzel", "sacks": 3}


def test_every_sack_gets_a_page() -> None:
    run = run_task(mill_labels, ORDER)
    pdf = base64.b64decode(run.result["pdf"])
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") == run.value.labels == 3
    assert [report.message for report in run.progress] == ["label 1 of 3", "label 2 of 3", "label 3 of 3"]
    assert [(line.event, line.fields["labels"]) for line in run.logs] == [("labels_bound", 3)]


def test_labels_are_drawn_into_the_scratch_directory(tmp_path: Path) -> None:
    run_task(mill_labels, ORDER, scratch=tmp_path)
    with Image.open(tmp_path / "2.png") as label:
        assert label.size == (600, 300)
        darkest, lightest = label.getextrema()
    assert (darkest, lightest) == (0, 255)


def test_the_largest_order_can_be_stored() -> None:
    run = run_task(mill_labels, {**ORDER, "customer": "M" * 20, "sacks": 200})
    assert run.value.labels == 200
    assert len(run.progress) == 200


def test_it_stops_when_the_client_cancels(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    with pytest.raises(PressStoppedError):
        run_task(mill_labels, ORDER, cancelled=looks.__next__, scratch=tmp_path)
    assert sorted(page.name for page in tmp_path.iterdir()) == ["1.png", "2.png"]


def test_a_name_that_the_font_does_not_have_never_starts() -> None:
    with pytest.raises(ValidationError):
        run_task(mill_labels, {**ORDER, "customer": "Söhne"})


def test_a_name_that_does_not_fit_is_not_tried_again() -> None:
    with pytest.raises(PermanentError, match="80 characters") as raised:
        run_task(mill_labels, {**ORDER, "customer": "W" * 80})
    assert raised.value.code == "customer_too_long"
