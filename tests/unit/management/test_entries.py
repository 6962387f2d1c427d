from headrace.v1.task_pb2 import TaskStatus, TaskUpdate, UpdateBatch
from management_service.publishing import entries_of


def update(task_id: int, result: bytes = b"") -> TaskUpdate:
    return TaskUpdate(
        task_id=task_id, status=TaskStatus.TASK_STATUS_COMPLETED, revision=task_id % 7 + 1, result=result or None
    )


def test_entries_hold_all_updates_in_their_order_and_few_of_them_each() -> None:
    updates = [update(task_id) for task_id in range(1, 2_501)]
    entries = list(entries_of(updates))
    assert [count for count, _ in entries] == [1_000, 1_000, 500]
    batches = [UpdateBatch.FromString(entry) for _, entry in entries]
    assert [task_id for batch in batches for task_id in batch.task_ids] == [each.task_id for each in updates]
    assert [revision for batch in batches for revision in batch.revisions] == [each.revision for each in updates]
    assert [TaskUpdate.FromString(each) for batch in batches for each in batch.updates] == updates


def test_an_entry_is_bounded_in_bytes_or_holds_one_update() -> None:
    updates = [update(task_id, b"x" * 4_096) for task_id in range(1, 1_001)] + [update(1_001, b"x" * 2**21)]
    entries = list(entries_of(updates))
    assert sum(count for count, _ in entries) == 1_001
    assert all(len(entry) < 2**20 + 100_000 or count == 1 for count, entry in entries)


def test_nothing_is_no_entry() -> None:
    assert list(entries_of([])) == []
