"""Sends orders to the cluster and prints what comes of them: `python send_orders.py [URL]`."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx

FOLDER = Path(__file__).parent
WAIT_SECONDS = 30


def main(url: str) -> None:
    slip = FOLDER / "slips" / "17.json"
    slip.unlink(missing_ok=True)  # that of the last time
    with httpx.Client(base_url=url, timeout=WAIT_SECONDS + 10) as http:
        weighing = submit(http, "mill_weighing", {"number": 17})
        lines = [{"product": "rye", "sacks": 24}, {"product": "spelt", "sacks": 3}]
        invoice = submit(http, "mill_invoice", {"number": 17, "country": "DE", "lines": lines})
        labels = submit(http, "mill_labels", {"number": 17, "customer": "Bakery Pretzel", "sacks": 27})

        bill = result(http, invoice)
        print(f"Order 17 costs {bill['net']} + {bill['tax']} tax = {bill['total']} EUR.")

        printed = result(http, labels)
        pdf = FOLDER / "labels.pdf"
        pdf.write_bytes(base64.b64decode(printed["pdf"]))
        print(f"Its {printed['labels']} labels are in {pdf.name}.")

        status = read(http, weighing)["status"]
        print(f"Task {weighing} waits for the truck and is {status}. Here it comes.")
        write_slip(slip, full_kg=18_240, empty_kg=11_400)
        print(f"It brought {result(http, weighing)['grain_kg']} kg of grain.")

        order = {"number": 18, "country": "FR", "lines": [{"product": "oat", "sacks": 1}]}
        error = ended(http, submit(http, "mill_invoice", order))["error"]
        print(f"Order 18 failed with {error['code']}: {error['message']}")

        refused = http.post(
            "/api/tasks", json={"type": "mill_invoice", "data": {**order, "number": 19, "country": "IT"}}
        )
        print(f"Order 19 was refused with {refused.status_code}: {refused.json()['detail']}")


def submit(http: httpx.Client, type_name: str, data: dict[str, Any]) -> int:
    """Return the id of the task, which is kept from now on."""
    answer = http.post("/api/tasks", json={"type": type_name, "data": data})
    answer.raise_for_status()
    task_id: int = answer.json()["task_id"]
    return task_id


def read(http: httpx.Client, task_id: int, *, wait: int = 0) -> dict[str, Any]:
    """Return what is known of the task: now, or when it has ended or `wait` seconds have passed."""
    answer = http.get(f"/api/tasks/{task_id}", params={"wait": wait})
    answer.raise_for_status()
    task: dict[str, Any] = answer.json()
    return task


def ended(http: httpx.Client, task_id: int) -> dict[str, Any]:
    """Return the task when it has ended."""
    task = read(http, task_id, wait=WAIT_SECONDS)
    if task["status"] not in ("completed", "failed", "cancelled"):
        sys.exit(f"Task {task_id} is {task['status']} after {WAIT_SECONDS} s.")
    return task


def result(http: httpx.Client, task_id: int) -> Any:
    """Return the result of a task that has to complete."""
    task = ended(http, task_id)
    if task["status"] != "completed":
        sys.exit(f"Task {task_id} is {task['status']}: {task['error']}")
    return task["result"]


def write_slip(slip: Path, **kilograms: int) -> None:
    """Play the scale. It writes under another name first, so that nobody reads half of a slip."""
    slip.parent.mkdir(exist_ok=True)
    draft = slip.with_suffix(".draft")
    draft.write_text(json.dumps(kilograms))
    draft.rename(slip)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
