import pytest

from gateway.admission import Admission
from gateway.bodies import decode_task, decode_tasks
from gateway.catalog import Catalog
from gateway.management import Management
from headrace.v1.task_pb2 import Backoff, TaskOptions
from servicekit.errors import HeadraceError, InvalidArgument, TooLarge, Unavailable
from tests.support.fake_management import NOOP, WORD_COUNT, DirectCalls, FakeManagement, task_type


@pytest.fixture
def management() -> FakeManagement:
    return FakeManagement()


@pytest.fixture
def catalog(management: FakeManagement) -> Catalog:
    return Catalog(Management(DirectCalls(management)))


@pytest.fixture
def admission(catalog: Catalog) -> Admission:
    return Admission(catalog, data_bytes_max=100, batch_tasks_max=3)


async def refused(admission: Admission, body: bytes) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        await admission.admit_one(decode_task(body))
    return caught.value


async def test_what_is_left_out_comes_from_the_catalog(admission: Admission) -> None:
    submission = await admission.admit_one(decode_task(b'{"type":"noop","data":{"a": 1}}'))
    assert (submission.type, submission.data, submission.pool) == ("noop", b'{"a": 1}', "io")
    assert (submission.priority, submission.max_attempts, submission.timeout_ms) == (4, 3, 30_000)
    assert not submission.HasField("run_at")
    assert submission.delay_ms == 0
    assert submission.accepted_at.seconds > 0


async def test_given_options_win(admission: Admission) -> None:
    submission = await admission.admit_one(
        decode_task(b'{"type":"noop","data":{},"priority":0,"max_attempts":1,"timeout":1.5,"delay":0.25}')
    )
    assert (submission.priority, submission.max_attempts) == (0, 1)
    assert (submission.timeout_ms, submission.delay_ms) == (1500, 250)


async def test_a_plain_task_carries_no_options(admission: Admission) -> None:
    for options in ("", ',"timeout":5', ',"backoff":{}', ',"backoff":{"initial":1,"factor":2.0,"maximum":300}'):
        submission = await admission.admit_one(decode_task(b'{"type":"noop","data":{}' + options.encode() + b"}"))
        assert not submission.HasField("options")
        assert submission.expires_in_ms == 0


async def test_what_is_not_the_default_is_carried(admission: Admission) -> None:
    submission = await admission.admit_one(
        decode_task(b'{"type":"noop","data":{},"expires_in":1.5,"soft_timeout":29.999,"backoff":{"initial":0.5}}')
    )
    assert submission.expires_in_ms == 1500
    assert submission.options == TaskOptions(
        soft_timeout_ms=29_999, backoff=Backoff(initial_ms=500, factor=2.0, max_ms=300_000)
    )
    shortest = await admission.admit_one(decode_task(b'{"type":"noop","data":{},"expires_in":0.0001}'))
    assert shortest.expires_in_ms == 1


async def test_the_options_of_the_type_fill_what_is_left_out(admission: Admission, management: FakeManagement) -> None:
    own = TaskOptions(soft_timeout_ms=10_000, backoff=Backoff(initial_ms=100, factor=3.0, max_ms=900))
    management.types = [task_type("own", options=own)]

    async def options(given: bytes) -> TaskOptions:
        return (await admission.admit_one(decode_task(b'{"type":"own","data":{}' + given + b"}"))).options

    assert await options(b"") == own
    assert await options(b',"timeout":10.001') == own
    # It could never come first.
    assert await options(b',"timeout":10') == TaskOptions(backoff=own.backoff)
    assert await options(b',"soft_timeout":5') == TaskOptions(soft_timeout_ms=5000, backoff=own.backoff)
    assert await options(b',"backoff":{"maximum":0.2}') == TaskOptions(
        soft_timeout_ms=10_000, backoff=Backoff(initial_ms=100, factor=3.0, max_ms=200)
    )
    back_to_default = b',"backoff":{"initial":1,"factor":2,"maximum":300}'
    assert await options(back_to_default) == TaskOptions(soft_timeout_ms=10_000)


@pytest.mark.parametrize(
    ("options", "field", "rule"),
    [
        (b'"soft_timeout":30', "/soft_timeout", "less_than_timeout"),  # as long as the type's
        (b'"soft_timeout":29.9999', "/soft_timeout", "less_than_timeout"),  # the same in milliseconds
        (b'"soft_timeout":5,"timeout":5', "/soft_timeout", "less_than_timeout"),
        (b'"backoff":{"initial":301}', "/backoff/initial", "initial_above_maximum"),
        (b'"backoff":{"maximum":0.5}', "/backoff/maximum", "initial_above_maximum"),
        (b'"backoff":{"initial":2,"maximum":1}', "/backoff/initial", "initial_above_maximum"),
    ],
)
async def test_options_that_do_not_go_together_are_refused(
    admission: Admission, options: bytes, field: str, rule: str
) -> None:
    error = await refused(admission, b'{"type":"noop","data":{},' + options + b"}")
    assert (error.http_status, error.fields[0].field, error.fields[0].rule) == (422, field, rule)


@pytest.mark.parametrize("name", ["wordcount", "", "../x", "__import__", "Word_Count", "word_count ", "x" * 300])
async def test_an_unknown_type_is_refused(admission: Admission, name: str) -> None:
    error = await refused(admission, b'{"type":"' + name.encode() + b'","data":{}}')
    assert (error.http_status, error.code, error.fields[0].field) == (422, "unknown_task_type", "/type")
    assert len(error.message) < 300


async def test_the_nearest_type_is_suggested(admission: Admission) -> None:
    error = await refused(admission, b'{"type":"wordcount","data":{}}')
    assert "'word_count'" in error.message


async def test_a_type_that_appeared_just_now_is_found(
    admission: Admission, catalog: Catalog, management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.catalog._EXTRA_REFRESH_SECONDS", 0.0)
    await catalog.refresh()
    management.types.append(task_type("brand_new"))
    assert (await admission.admit_one(decode_task(b'{"type":"brand_new","data":{}}'))).type == "brand_new"


async def test_unknown_types_do_not_flood_management(admission: Admission, management: FakeManagement) -> None:
    for _ in range(20):
        await refused(admission, b'{"type":"nope","data":{}}')
    assert management.calls["ListTaskTypes"] == 1


async def test_before_the_catalog_was_read_nothing_is_called_unknown(
    admission: Admission, management: FakeManagement
) -> None:
    management.failures["ListTaskTypes"] = Unavailable("away")
    error = await refused(admission, b'{"type":"noop","data":{}}')
    assert (error.http_status, error.code) == (503, "catalog_unavailable")


async def test_an_empty_catalog_is_no_reason_to_call_a_type_unknown(
    admission: Admission, management: FakeManagement
) -> None:
    management.types = []
    assert (await refused(admission, b'{"type":"noop","data":{}}')).code == "catalog_unavailable"


async def test_known_types_stay_known_while_management_is_away(
    admission: Admission, catalog: Catalog, management: FakeManagement
) -> None:
    await catalog.refresh()
    management.failures["ListTaskTypes"] = Unavailable("away")
    assert (await admission.admit_one(decode_task(b'{"type":"noop","data":{}}'))).type == "noop"


async def test_a_type_without_a_usable_schema_is_not_accepted_unchecked(management: FakeManagement) -> None:
    management.types = [NOOP, task_type("odd", schema={"type": "strang"})]
    catalog = Catalog(Management(DirectCalls(management)))
    await catalog.refresh()
    assert catalog.find("odd") is None
    assert catalog.find("noop") is not None


async def test_a_type_keeps_its_last_usable_schema(management: FakeManagement) -> None:
    catalog = Catalog(Management(DirectCalls(management)))
    await catalog.refresh()
    management.types = [task_type("noop", schema={"type": 7})]
    await catalog.refresh()
    assert catalog.find("noop") is not None


@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        (b'{"text":7}', "/data/text", "type"),
        (b'{"text":"x","top":true}', "/data/top", "type"),
        (b'{"text":"x","top":0}', "/data/top", "minimum"),
        (b"{}", "/data/text", "required"),
        (b'{"text":"x","tpo":1}', "/data/tpo", "unknown_field"),
        (b"[]", "/data", "type"),
        (b'"x"', "/data", "type"),
        (b"null", "/data", "type"),
        (rb'{"text":"\u0000"}', "/data/text", "nul_character"),
        (b'{"text":"x","top":1e999}', "/data/top", "number_out_of_range"),
        (b'{"text":' + b"[" * 40 + b"]" * 40 + b"}", "/data/text" + "/0" * 31, "too_deep"),
    ],
)
async def test_data_is_checked_against_the_schema_and_the_rules(
    admission: Admission, data: bytes, field: str, rule: str
) -> None:
    error = await refused(admission, b'{"type":"word_count","data":' + data + b"}")
    assert error.http_status == 422
    assert (error.fields[0].field, error.fields[0].rule) == (field, rule)


async def test_the_values_of_the_caller_are_not_repeated(admission: Admission) -> None:
    error = await refused(admission, b'{"type":"word_count","data":{"text":"x","top":"secret"}}')
    assert "secret" not in error.message + error.fields[0].message


async def test_data_above_the_limit_is_too_large(admission: Admission) -> None:
    with pytest.raises(TooLarge) as caught:
        await admission.admit_one(decode_task(b'{"type":"word_count","data":{"text":"' + b"x" * 100 + b'"}}'))
    assert "100" in caught.value.message
    assert caught.value.fields[0].field == "/data"


@pytest.mark.parametrize(("count", "rule"), [(0, "batch_empty"), (4, "batch_too_large")])
async def test_a_batch_has_its_bounds(admission: Admission, count: int, rule: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await admission.admit_many(decode_tasks(b"[" + b",".join([b'{"type":"noop","data":{}}'] * count) + b"]"))
    assert caught.value.fields[0].rule == rule


async def test_one_bad_task_refuses_the_batch_and_is_named(admission: Admission) -> None:
    bodies = decode_tasks(b'[{"type":"noop","data":{}},{"type":"word_count","data":{}},{"type":"nope","data":{}}]')
    with pytest.raises(InvalidArgument) as caught:
        await admission.admit_many(bodies)
    assert [error.field for error in caught.value.fields] == ["/1/data/text", "/2/type"]


async def test_the_catalog_is_described_with_its_replicas(catalog: Catalog) -> None:
    await catalog.refresh()
    described = catalog.describe_all()
    assert [each["name"] for each in described] == [NOOP.name, WORD_COUNT.name]
    assert described[1]["data_schema"]["required"] == ["text"]
    assert described[1]["replicas"] == ["execution-1"]
