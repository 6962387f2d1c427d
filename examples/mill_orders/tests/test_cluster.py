"""What only a cluster can show: schemas at work, worker processes, pools, a client's cancel."""

import base64

import httpx
import pytest
from headrace.testing import RunningCluster, TaskFailedError, TaskRefusedError


def test_an_order_goes_through(cluster: RunningCluster) -> None:
    order = {"number": 17, "country": "AT", "lines": [{"product": "wheat", "sacks": 2}]}
    assert cluster.run("mill_invoice", order)["total"] == "47.85"
    labels = cluster.run("mill_labels", {"number": 17, "customer": "Bakery Pretzel", "sacks": 200})
    assert base64.b64decode(labels["pdf"]).startswith(b"%PDF-")


def test_labels_have_a_pool_of_their_own(cluster: RunningCluster) -> None:
    types = {entry["name"]: entry for entry in httpx.get(f"{cluster.url}/api/task-types").json()}
    pools = {name: types[name]["pool"] for name in ("mill_invoice", "mill_labels", "mill_weighing")}
    assert pools == {"mill_invoice": "cpu", "mill_labels": "press", "mill_weighing": "io"}


def test_what_is_no_order_is_refused_where_it_is_submitted(cluster: RunningCluster) -> None:
    with pytest.raises(TaskRefusedError, match="/data/country"):
        cluster.submit("mill_invoice", {"number": 17, "country": "IT", "lines": [{"product": "rye", "sacks": 1}]})


def test_an_unknown_product_fails_at_once(cluster: RunningCluster) -> None:
    with pytest.raises(TaskFailedError) as raised:
        cluster.run("mill_invoice", {"number": 17, "country": "DE", "lines": [{"product": "oat", "sacks": 1}]})
    assert (raised.value.code, raised.value.task["failures"]) == ("unknown_product", 1)


def test_a_wait_can_be_cancelled(cluster: RunningCluster) -> None:
    task_id = cluster.submit("mill_weighing", {"number": 999_999_999})
    httpx.delete(f"{cluster.url}/api/tasks/{task_id}", timeout=10).raise_for_status()
    assert cluster.wait(task_id)["status"] == "cancelled"
