"""The invariants, over what clients were promised and what is left in the end.

Each violation names the invariant and the tasks. `check` knows nothing of the cluster: it reads a ledger and its
evidence, so it can be tested on doctored ones.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.harness.evidence import FINAL, Evidence, Survivor
from tests.faults.harness.ledger import Ledger
from tests.support.side_effects import Line

# An attempt that was overtaken may start this much later than the next one: its replica had not heard yet.
OVERTAKEN_SECONDS = 2.0
ORPHANED_SECONDS_MAX = 10.0
# What a process may hold more than before: connections that it opens under load and keeps, and a tenth.
FILES_MORE = 24
THREADS_MORE = 4
# How soon a process has to say that it cannot work, and that it can again.
NOTICED_SECONDS = 15.0
READY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a scenario may cost."""

    # Attempts started beyond the first of their task.
    reruns: int = 0
    # Failures and worker deaths charged to tasks, all together.
    charged: int = 0
    # Statuses in which promised tasks may end.
    statuses: tuple[str, ...] = ("completed",)
    # The watchers in the evidence saw everything: only where no event was recorded by hand.
    events: bool = True


@dataclass(slots=True)
class Verdict:
    attempted: int = 0
    acknowledged: int = 0
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    # Tasks that exist though nobody was promised them: their answers were lost on the way.
    unexpected: int = 0
    reruns: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        facts = (
            f"attempted {self.attempted}, acknowledged {self.acknowledged}, lost {len(self.lost)}, "
            f"doubled {len(self.doubled)}, stuck {len(self.stuck)}, unexpected {self.unexpected}, reruns {self.reruns}"
        )
        return "\n".join([facts, *self.violations])


def check(ledger: Ledger, evidence: Evidence, allowed: Allowed | None = None) -> Verdict:
    """Hold a run to its invariants."""
    allowed = allowed or Allowed()
    verdict = Verdict(attempted=sum(entry.count for entry in ledger.entries), acknowledged=len(ledger.acked))
    promised = set(ledger.acked)
    verdict.unexpected = len(evidence.tasks.keys() - promised)
    verdict.lost = sorted(promised - evidence.tasks.keys())
    verdict.stuck = sorted(task.task_id for task in evidence.tasks.values() if task.status not in FINAL)
    starts = Counter((line.task_id, line.attempt) for line in evidence.effects if line.event == "start")
    verdict.doubled = sorted({task_id for (task_id, _), count in starts.items() if count > 1})
    verdict.reruns = len(starts) - len({task_id for task_id, _ in starts})
    violations = verdict.violations
    violations += _all(
        ("I1 promised and not there", verdict.lost),
        ("I1 never came to an end", verdict.stuck),
        ("I1 ended otherwise", _ended_otherwise(evidence, promised, allowed)),
        ("I2 completed without its result", _without_result(evidence)),
        ("I3 the result is not of the last attempt", _wrong_attempt(evidence)),
        ("I3 a result of an attempt that never was", _of_no_attempt(evidence)),
        ("I4 one attempt started twice", verdict.doubled),
        ("I4 attempts not rising", _not_rising(evidence.effects)),
        ("I4 started an attempt that never was claimed", _unclaimed(evidence)),
        ("I5 started after it was overtaken", _overtaken(evidence.effects)),
        ("I6 moved after its end", _resurrected(evidence)),
        ("I8 events with gaps, repeats or more than one end", _bad_stories(evidence) if allowed.events else ()),
    )
    violations += _unasked(ledger, verdict)
    violations += _keys(ledger, evidence)
    violations += _rest(evidence)
    if verdict.reruns > allowed.reruns:
        violations.append(f"I9 {verdict.reruns} attempts were run again, {allowed.reruns} allowed")
    charged = sum(task.failures + task.worker_deaths for task in evidence.tasks.values())
    if charged > allowed.charged:
        violations.append(f"I11 {charged} failures were charged to tasks, {allowed.charged} allowed")
    violations += [f"I16 {name} logged a password" for name in evidence.leaks]
    violations += _slow(evidence) + grown(evidence.survivors) + _misleading(evidence)
    if evidence.orphaned_seconds > ORPHANED_SECONDS_MAX:
        violations.append(f"I12 tasks of ended sessions were not rescued for {evidence.orphaned_seconds:.1f} s")
    return verdict


def _all(*found: tuple[str, Iterable[int]]) -> list[str]:
    return [f"{rule}: {ids[:20]} ({len(ids)})" for rule, each in found if (ids := sorted(set(each)))]


def _ended_otherwise(evidence: Evidence, promised: set[int], allowed: Allowed) -> Iterator[int]:
    for task_id in promised & evidence.tasks.keys():
        status = evidence.tasks[task_id].status
        if status in FINAL and status not in allowed.statuses:
            yield task_id


def _without_result(evidence: Evidence) -> Iterator[int]:
    for task in evidence.tasks.values():
        if task.status == "completed" and not task.removed:
            if task.result_attempt is None or (task.task_id, task.result_attempt) not in evidence.results:
                yield task.task_id
        elif task.result_attempt is not None and not task.removed:
            yield task.task_id


def _wrong_attempt(evidence: Evidence) -> Iterator[int]:
    return (
        t.task_id for t in evidence.tasks.values() if t.result_attempt is not None and t.result_attempt != t.attempt
    )


def _of_no_attempt(evidence: Evidence) -> Iterator[int]:
    return (
        task_id
        for task_id, attempt in evidence.results
        if task_id in evidence.tasks and attempt > evidence.tasks[task_id].attempt
    )


def _unclaimed(evidence: Evidence) -> Iterator[int]:
    return (
        line.task_id
        for line in evidence.effects
        if line.task_id in evidence.tasks and line.attempt > evidence.tasks[line.task_id].attempt
    )


def _not_rising(effects: Iterable[Line]) -> Iterator[int]:
    newest: dict[int, int] = {}
    for line in sorted((line for line in effects if line.event == "start"), key=lambda line: line.at):
        if line.attempt <= newest.get(line.task_id, 0):
            yield line.task_id
        newest[line.task_id] = max(line.attempt, newest.get(line.task_id, 0))


def _overtaken(effects: Iterable[Line]) -> Iterator[int]:
    starts: dict[int, list[Line]] = defaultdict(list)
    for line in effects:
        if line.event == "start":
            starts[line.task_id].append(line)
    for task_id, lines in starts.items():
        for line in lines:
            if any(other.attempt > line.attempt and line.at > other.at + OVERTAKEN_SECONDS for other in lines):
                yield task_id


def _resurrected(evidence: Evidence) -> Iterator[int]:
    """A final update, and an update of a later revision, or another end, after it."""
    ends: dict[int, tuple[int, str]] = {}
    for event in evidence.events:
        if event.status in FINAL:
            known = ends.setdefault(event.task_id, (event.revision, event.status))
            if known != (event.revision, event.status):
                yield event.task_id
    for event in evidence.events:
        if event.task_id in ends and event.revision > ends[event.task_id][0]:
            yield event.task_id
    for task_id, (revision, status) in ends.items():
        task = evidence.tasks.get(task_id)
        if task is not None and not task.removed and (task.revision, task.status) != (revision, status):
            yield task_id


def _bad_stories(evidence: Evidence) -> Iterator[int]:
    """Each follower connects again after a cut, so revisions may repeat over connections, but never go back."""
    stories: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for event in evidence.events:
        stories[event.task_id].append((event.revision, event.status))
    for task_id, story in stories.items():
        revisions = [revision for revision, _ in story]
        ends = [status for _, status in story if status in FINAL]
        if revisions != sorted(revisions) or len(ends) != 1 or story[-1][1] not in FINAL:
            yield task_id


def _unasked(ledger: Ledger, verdict: Verdict) -> list[str]:
    """I1: there may be tasks that nobody was promised, as many as requests went without a good answer asked for."""
    asked = sum(entry.count for entry in ledger.entries if entry.outcome != "acked")
    if verdict.unexpected <= asked:
        return []
    return [f"I1 {verdict.unexpected} tasks that nobody was promised, requests without an answer asked for {asked}"]


def _keys(ledger: Ledger, evidence: Evidence) -> list[str]:
    """I7: one answer for each key, and no task that has the key beside it.

    The tasks of a batch have keys of their own, made of the request's.
    """
    answers: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for entry in ledger.entries:
        if entry.key is not None and entry.outcome == "acked":
            answers[entry.key].add(tuple(entry.task_ids))
    split = sorted(key for key, ids in answers.items() if len(ids) > 1)
    holders = Counter(task.key for task in evidence.tasks.values() if task.key is not None)
    shared = sorted(key for key, count in holders.items() if count > 1)
    found = [f"I7 one key, several answers: {split}"] if split else []
    return found + ([f"I7 one key, several tasks: {shared}"] if shared else [])


def _rest(evidence: Evidence) -> list[str]:
    """I10, and that nothing waits to be told."""
    found = []
    if evidence.stream_length or evidence.stream_pending:
        found.append(f"I10 {evidence.stream_length} entries in the stream, {evidence.stream_pending} pending")
    if evidence.markers:
        found.append(f"I10 {evidence.markers} markers of tasks that were stored long ago")
    if any(evidence.backlog.values()):
        found.append(f"I10 the backlog counts {evidence.backlog} though nothing waits")
    if evidence.outbox:
        found.append(f"I8 {evidence.outbox} final updates wait to be published")
    return found


def _slow(evidence: Evidence) -> list[str]:
    return [
        f"I13 {each.what} took {each.seconds:.2f} s, {each.promised:g} s are promised"
        for each in evidence.recoveries
        if each.seconds > each.promised
    ]


def grown(survivors: Iterable[Survivor]) -> list[str]:
    """I14: what a process has opened for what is over it has closed again. For its memory scenarios have bounds."""
    return [
        f"I14 {each.name} held {before} {kind} and holds {after}"
        for each in survivors
        for kind, before, after, more in (
            ("files", each.before.files, each.after.files, FILES_MORE),
            ("threads", each.before.threads, each.after.threads, THREADS_MORE),
        )
        if after > before * 1.1 + more
    ]


def _misleading(evidence: Evidence) -> list[str]:
    """I15: not ready while no progress was possible, and ready soon after."""
    found = []
    for outage in evidence.outages:
        late = [ready for at, ready in outage.said if outage.began + NOTICED_SECONDS <= at < outage.ended]
        if any(late) or not any(not ready for at, ready in outage.said if at < outage.ended):
            found.append(f"I15 {outage.name} called itself ready while it could do nothing")
        again = next((at - outage.ended for at, ready in outage.said if ready and at >= outage.ended), None)
        if again is None or again > READY_SECONDS:
            found.append(f"I15 {outage.name} was not ready within {READY_SECONDS:g} s after it could work again")
    return found
