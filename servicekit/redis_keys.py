"""Every Redis key and channel of Headrace, with type, content and lifetime. Nothing else spells one out."""

# Stream, one field `b` with a serialized SubmissionBatch; an entry lives until its tasks are committed.
SUBMISSIONS = "headrace:submissions"
SUBMISSIONS_FIELD = b"b"
# Channel of the same name: wakes management replicas. The content says nothing.
SUBMISSIONS_CHANNEL = SUBMISSIONS
# The consumer group of all management replicas on the stream.
SUBMISSIONS_GROUP = "management"
# Stream of entries and tasks that could not be stored; fields `reason`, `entry`, `b`. Kept for people, newest 10,000.
DEAD_SUBMISSIONS = "headrace:submissions:dead"
# Hash of what the stream holds: `tasks` and `bytes`.
BACKLOG = "headrace:submissions:backlog"
BACKLOG_TASKS = "tasks"
BACKLOG_BYTES = "bytes"
# Sorted set, one member `first-last` per flush with the last id as score; removed when its tasks are committed.
UNSTORED = "headrace:unstored"
# Sorted set with the single member `block`: the highest id block handed out, so that a restored database repeats none.
IDS_HIGH = "headrace:ids:high"
IDS_HIGH_MEMBER = "block"
# Channel: names of pools, joined by commas, that have ready tasks which the sender did not send.
READY_CHANNEL = "headrace:ready"
# Stream, one field `b` with a serialized UpdateBatch; cut by those who add to it at 100,000 updates, 64 MiB, 5 minutes.
UPDATES = "headrace:updates"
UPDATES_FIELD = b"b"
# Hash of what was ever added to it: `updates` and `bytes`.
UPDATES_ADDED = "headrace:updates:added"
UPDATES_ADDED_UPDATES = "updates"
UPDATES_ADDED_BYTES = "bytes"

# First byte of a cached read: a serialized Task follows, or nothing does and management must be asked.
CACHED_TASK = b"T"
TOMBSTONE = b"X"
CACHE_SECONDS = 60
# What finds all of them.
CACHED_TASKS = "headrace:task:*"


def cached_task(task_id: int) -> str:
    """String: the read cache of one finished task, or its tombstone. Lives CACHE_SECONDS."""
    return f"headrace:task:{task_id}"


def marker(first_id: int, last_id: int) -> str:
    """Member of UNSTORED for one flush with the ids `first_id` to `last_id`, both included."""
    return f"{first_id}-{last_id}"
