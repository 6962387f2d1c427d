"""The demand accounts: nothing is asked for beyond the target, nothing leaks, nothing stays where it is not used."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given, settings

from execution_service.demand import (
    IDLE_SECONDS,
    PREFETCH_MAX,
    PREFETCH_SECONDS,
    RECALL_SECONDS,
    RECALL_UNANSWERED_SECONDS,
    RECENT_SECONDS,
    DemandBook,
    Grant,
    RecentTypes,
    Target,
    prefetch,
)


@dataclass
class Managers:
    """Managers that follow the contract: they use or return open demand only, in running totals."""

    book: DemandBook = field(default_factory=lambda: DemandBook(["cpu"]))
    granted: dict[int, int] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)
    recalled: set[int] = field(default_factory=set)
    held: int = 0
    now: float = 100.0

    def join(self, stream: int) -> None:
        self.book.add_stream(stream)
        self.granted[stream] = self.sent[stream] = self.returned[stream] = 0

    def leave(self, stream: int) -> None:
        self.book.remove_stream(stream)
        del self.granted[stream]
        self.recalled.discard(stream)

    def open(self, stream: int) -> int:
        return self.granted[stream] - self.sent[stream] - self.returned[stream]

    @property
    def open_total(self) -> int:
        return sum(self.open(stream) for stream in self.granted)

    def plan(self, target: Target, fit: set[int] | None = None) -> list[Grant]:
        able = set(self.granted) if fit is None else fit & set(self.granted)
        grants = self.book.plan("cpu", target, held=self.held, fit=able, now=self.now)
        for grant in grants:
            assert grant.granted >= self.granted[grant.stream]
            if grant.recall:
                assert grant.stream not in self.recalled, "asked back twice without an answer"
                self.recalled.add(grant.stream)
            self.granted[grant.stream] = grant.granted
        return grants

    def use(self, stream: int, count: int) -> None:
        count = min(count, self.open(stream))
        self.held += count
        self.sent[stream] += count
        self._tell(stream)

    def answer_recall(self, stream: int) -> None:
        if stream in self.recalled:
            self.recalled.discard(stream)
            self.returned[stream] += self.open(stream)
            self._tell(stream)

    def _tell(self, stream: int) -> None:
        if self.open(stream) == 0:
            self.recalled.discard(stream)
        self.book.use(stream, "cpu", sent=self.sent[stream], returned=self.returned[stream], now=self.now)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 4)),
        st.tuples(st.just("leave"), st.integers(1, 4)),
        st.tuples(st.just("use"), st.integers(1, 4), st.integers(1, 300)),
        st.tuples(st.just("answer"), st.integers(1, 4)),
        st.tuples(st.just("finish"), st.integers(1, 300)),
        st.tuples(st.just("wait"), st.floats(0.01, 3.0)),
        st.tuples(st.just("plan"), st.sets(st.integers(1, 4))),
    ),
    max_size=60,
)
TARGETS = st.builds(Target, st.integers(0, 64), st.integers(0, 500))


def run_step(managers: Managers, step: tuple[object, ...], target: Target) -> None:
    match step:
        case ("join", int(stream)) if stream not in managers.granted:
            managers.join(stream)
        case ("leave", int(stream)) if stream in managers.granted:
            managers.leave(stream)
        case ("use", int(stream), int(count)) if stream in managers.granted:
            managers.use(stream, count)
        case ("answer", int(stream)) if stream in managers.granted:
            managers.answer_recall(stream)
        case ("finish", int(count)):
            managers.held -= min(count, managers.held)
        case ("wait", float(seconds)):
            managers.now += seconds
        case ("plan", set(fit)):
            managers.plan(target, fit)


@given(target=TARGETS, steps=STEPS)
def test_held_and_open_demand_never_exceed_the_target(target: Target, steps: list[tuple[object, ...]]) -> None:
    managers = Managers()
    for step in steps:
        run_step(managers, step, target)
        assert managers.held + managers.open_total <= target.total
        assert managers.open_total == managers.book.open("cpu")


@settings(max_examples=50)
@given(target=TARGETS.filter(lambda target: target.slots > 0), steps=STEPS)
def test_after_any_sequence_all_demand_can_be_out_again(target: Target, steps: list[tuple[object, ...]]) -> None:
    managers = Managers()
    for step in steps:
        run_step(managers, step, target)
    for stream in list(managers.granted):
        managers.leave(stream)
    managers.held = 0
    managers.join(9)
    managers.plan(target)
    assert managers.open_total == target.total


@given(before=TARGETS, after=TARGETS, steps=STEPS)
def test_a_lower_target_is_reached_once_recalls_are_answered(
    before: Target, after: Target, steps: list[tuple[object, ...]]
) -> None:
    managers = Managers()
    for step in steps:
        run_step(managers, step, before)
    managers.held = 0
    for _ in range(4):
        managers.now += RECALL_SECONDS
        managers.plan(after)
        for stream in list(managers.granted):
            managers.answer_recall(stream)
    managers.plan(after)
    assert managers.open_total <= after.total + after.total // 2


def test_demand_for_a_worker_that_is_gone_is_asked_back() -> None:
    managers = Managers()
    managers.join(1)
    managers.plan(Target(8))
    assert [grant.recall for grant in managers.plan(Target(7))] == [True]
    managers.answer_recall(1)
    managers.plan(Target(7))
    assert managers.open(1) == 7


def test_demand_is_split_evenly_between_managers() -> None:
    managers = Managers()
    managers.join(1)
    managers.join(2)
    managers.plan(Target(64, 100))
    assert {managers.open(1), managers.open(2)} == {82}


def test_a_manager_that_is_not_fit_gets_nothing_and_what_it_had_is_asked_back_once() -> None:
    managers = Managers()
    managers.join(1)
    managers.plan(Target(2))
    assert managers.open(1) == 2
    first = managers.plan(Target(2), fit=set())
    assert [grant.recall for grant in first] == [True]
    assert managers.plan(Target(2), fit=set()) == []


def test_short_tasks_are_granted_in_batches_and_long_ones_at_once() -> None:
    short, long = Managers(), Managers()
    for managers, target in ((short, Target(2, 400)), (long, Target(4))):
        managers.join(1)
        managers.plan(target)
        managers.use(1, target.total)
        managers.held -= 1
    assert short.plan(Target(2, 400)) == []
    assert [grant.granted for grant in long.plan(Target(4))] == [5]
    short.held -= 99
    assert [grant.granted for grant in short.plan(Target(2, 400))] == [502]


def test_a_new_stream_gets_its_share_without_waiting_for_a_whole_batch() -> None:
    managers = Managers()
    managers.join(1)
    managers.plan(Target(2, 400))
    managers.use(1, 402)
    managers.held -= 10
    managers.join(2)
    managers.plan(Target(2, 400))
    assert managers.open(2) > 0


def test_demand_that_lies_unused_is_moved_to_a_manager_that_has_none() -> None:
    managers = Managers()
    managers.join(1)
    managers.join(2)
    target = Target(8)
    managers.plan(target)
    managers.use(1, 4)
    assert managers.plan(target) == []
    managers.now += IDLE_SECONDS
    assert [(grant.stream, grant.recall) for grant in managers.plan(target)] == [(2, True)]
    managers.answer_recall(2)
    managers.plan(target)
    assert managers.open(1) >= 2
    assert managers.held + managers.open_total == target.total


def test_idle_managers_that_all_have_demand_are_left_alone() -> None:
    managers = Managers()
    managers.join(1)
    managers.join(2)
    managers.plan(Target(8))
    managers.now += 60
    assert managers.plan(Target(8)) == []


def test_a_manager_that_cannot_give_back_what_it_claims_for_is_asked_again_but_not_at_once() -> None:
    managers = Managers()
    managers.join(1)
    managers.plan(Target(2))
    assert [grant.recall for grant in managers.plan(Target(2), fit=set())] == [True]
    managers.recalled.discard(1)
    managers.book.use(1, "cpu", sent=0, returned=0, now=managers.now)
    assert managers.plan(Target(2), fit=set()) == []
    managers.now += RECALL_SECONDS
    assert [grant.recall for grant in managers.plan(Target(2), fit=set())] == [True]


def test_a_manager_that_never_answers_a_recall_is_noticed() -> None:
    managers = Managers()
    managers.join(1)
    managers.plan(Target(2))
    managers.now += 60
    assert not managers.book.ignores_recall(1, managers.now)
    managers.plan(Target(2), fit=set())
    assert not managers.book.ignores_recall(1, managers.now + RECALL_UNANSWERED_SECONDS - 0.1)
    assert managers.book.ignores_recall(1, managers.now + RECALL_UNANSWERED_SECONDS)


def test_totals_that_arrive_late_or_twice_change_nothing() -> None:
    book = DemandBook(["cpu"])
    book.add_stream(1)
    book.plan("cpu", Target(10), held=0, fit=[1], now=0.0)
    book.use(1, "cpu", sent=4, returned=2, now=0.0)
    book.use(1, "cpu", sent=3, returned=1, now=0.0)
    book.use(1, "no_such_pool", sent=3, returned=1, now=0.0)
    book.use(2, "cpu", sent=3, returned=1, now=0.0)
    assert book.open("cpu") == 4


def test_prefetch_is_50_ms_of_work() -> None:
    assert prefetch(2, 0.005) == 20
    assert prefetch(1, PREFETCH_SECONDS) == 1
    assert prefetch(2, 0.0) == PREFETCH_MAX
    assert prefetch(2, 1e-5) >= 500


def test_where_long_ones_come_too_half_of_the_slots_are_left_to_the_short_ones() -> None:
    assert prefetch(2, 0.0001, long_part=0.1) == 10
    assert prefetch(2, 0.0001, long_part=1.0) == 1
    assert prefetch(1, 0.0001, long_part=1.0) == 0


def recent(*counts: dict[str, int], slots: int = 4, now: float = 0.0) -> int:
    """What is asked for beyond the slots after these assignments."""
    types = RecentTypes()
    for one in counts:
        types.note(one, now=0.0)
    return types.prefetch(slots, {"short": 0.001, "long": 30.0}.get, now=now)


def test_only_short_types_are_asked_for_beyond_the_slots() -> None:
    assert recent() == 0
    assert recent({"short": 1}) == 200
    assert recent({"long": 1}) == 0
    assert recent({"never_measured": 1}) == 0


def test_the_prefetch_follows_what_was_assigned_lately() -> None:
    assert recent({"long": 100}, {"short": 10}) < 4
    assert recent({"long": 100}, {"short": 2000}) == 200
    assert recent({"short": 2000}, {"long": 4}) < 150
    assert recent({"short": 2000}, {"never_measured": 10}) < 100


def test_nothing_is_asked_for_beyond_the_slots_after_a_pause_or_where_all_are_taken() -> None:
    assert recent({"short": 100}, now=RECENT_SECONDS - 0.01) == 200
    assert recent({"short": 100}, now=RECENT_SECONDS) == 0
    assert recent({"short": 100}, slots=0) == 0
    assert recent({"short": 100}, slots=-2) == 0


@given(
    counts=st.lists(
        st.dictionaries(st.sampled_from(["short", "long", "never_measured"]), st.integers(1, 3000)), max_size=8
    ),
    slots=st.integers(-4, 64),
)
def test_short_tasks_never_wait_for_more_than_50_ms_of_work_per_free_slot(
    counts: list[dict[str, int]], slots: int
) -> None:
    assert 0 <= recent(*counts, slots=slots) * 0.001 <= max(0, slots) * PREFETCH_SECONDS


def test_demand_is_asked_back_at_once_when_the_target_falls_again_after_a_grant() -> None:
    managers = Managers()
    managers.join(1)
    for _ in range(3):
        managers.plan(Target(2, 400))
        assert managers.open(1) == 402
        assert [grant.recall for grant in managers.plan(Target(2))] == [True]
        managers.answer_recall(1)
        managers.plan(Target(2))


def test_assignments_use_demand_as_they_arrive_and_the_total_that_follows_counts_them_once() -> None:
    book = DemandBook(["cpu"])
    book.add_stream(1)
    book.plan("cpu", Target(10), held=0, fit=[1], now=0.0)
    book.receive(1, {"cpu": 4, "no_such_pool": 1}, now=0.0)
    assert book.open("cpu") == 6
    book.use(1, "cpu", sent=4, returned=0, now=0.0)
    assert book.open("cpu") == 6
