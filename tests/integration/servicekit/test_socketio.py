"""What Socket.IO clients may get wrong, on purpose or not: each is told, ended or bounded, and others go on."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from headrace.v1.task_pb2 import TaskStatus
from servicekit.live.socketio.bounds import Bounds
from tests.support.engineio import PATH, engine_socket, poller
from tests.support.memory_streams import RunningStreams, run_streams
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
KIB = 1024


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[RunningStreams]:
    async with run_streams() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def running(shared: RunningStreams, caplog: pytest.LogCaptureFixture) -> AsyncIterator[RunningStreams]:
    """Every test ends with a client that is served as usual, and nothing is left of any, not even in the log."""
    shared.source.clear()
    shared.source.publish(7)
    yield shared
    async with engine_socket(shared.port) as socket:
        await socket.join()
        shared.source.publish(7, PROCESSING)
        assert (await socket.event())[0] == "task_update"
    await wait_until(lambda: not len(shared.socketio) and not len(shared.hub))
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: RunningStreams) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as client:
        yield client


# Handshakes.


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("EIO=2&transport=polling", 5),
        ("EIO=3&transport=polling", 5),
        ("EIO=99&transport=polling", 5),
        ("EIO=&transport=polling", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=foo", 0),
        ("EIO=4&transport=websocket", 0),
        ("EIO=4&transport=polling&transport=polling", 3),
        ("EIO=4&transport=polling&j=0", 3),
        ("EIO=4&transport=polling&sid=AAAA", 1),
        ("EIO=4&transport=polling&sid=../../x", 1),
        ("EIO=4&transport=polling&x=" + "y" * 5_000, 3),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_handshake_that_is_wrong_is_refused(http: httpx.AsyncClient, query: str, code: int) -> None:
    answer = await http.get(f"{PATH}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (404 if code == 1 else 400, code)
    assert answer.json()["message"]


async def test_an_old_client_is_told_which_it_needs(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{PATH}?EIO=3&transport=polling")
    assert "Socket.IO client of version 3 or 4" in answer.json()["message"]


async def test_a_request_that_names_no_protocol_is_not_ours(http: httpx.AsyncClient) -> None:
    assert (await http.get(f"{PATH}?transport=polling")).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "POST"])
async def test_other_methods_are_refused(http: httpx.AsyncClient, method: str) -> None:
    assert (await http.request(method, f"{PATH}?EIO=4&transport=polling")).status_code == 400


@pytest.mark.parametrize("origin", ["null", "https://good.example.evil", "http://127.0.0.1:1", "http://[", "x"])
async def test_pages_of_other_sites_are_refused(running: RunningStreams, http: httpx.AsyncClient, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = await http.request(method, f"{PATH}?EIO=4&transport=polling", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, 4)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    with pytest.raises(InvalidStatus) as caught:
        async with engine_socket(running.port, additional_headers={"Origin": origin}):
            pass
    assert caught.value.response.status_code == 403


async def test_a_page_of_our_own_is_served_without_headers_for_others(
    running: RunningStreams, http: httpx.AsyncClient
) -> None:
    origin = f"http://127.0.0.1:{running.port}"
    answer = await http.get(f"{PATH}?EIO=4&transport=polling", headers={"Origin": origin})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith(("access-control", "set-cookie"))]
    sid = json.loads(answer.text[1:])["sid"]
    await http.post(f"{PATH}?EIO=4&transport=polling&sid={sid}", content="1", headers={"Origin": origin})


async def test_cookies_mean_nothing(running: RunningStreams) -> None:
    async with engine_socket(running.port, additional_headers={"Cookie": "io=../../x; sid=" + "y" * 4_000}) as socket:
        await socket.join()


async def test_headers_that_are_too_large_are_refused(running: RunningStreams) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with engine_socket(running.port, additional_headers={"Cookie": "io=" + "y" * 9_000}):
            pass
    assert caught.value.response.status_code == 431


async def test_guessed_sessions_are_all_refused(running: RunningStreams, http: httpx.AsyncClient) -> None:
    async with poller(running.port) as client:
        for number in range(200):
            guess = f"{client.sid[:-4]}{number:04}"
            answer = await http.get(f"{PATH}?EIO=4&transport=polling&sid={guess}")
            assert (answer.status_code, answer.json()["code"]) == (404, 1)
        await client.post("1")


async def test_a_session_that_was_closed_is_unknown(running: RunningStreams, http: httpx.AsyncClient) -> None:
    async with poller(running.port) as client:
        assert (await client.post("1")).status_code == 200
        assert (await client.request()).json()["code"] == 1
        with pytest.raises(InvalidStatus) as caught:
            async with engine_socket(running.port, query=f"&sid={client.sid}"):
                pass
        assert caught.value.response.status_code == 404


# Bodies and polls.


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"4" + b"x" * 64 * KIB, 413),
        ("\x1e".join(["3"] * 10_000).encode(), 400),
        (b"\xff\xfe", 400),
        (b"", 400),
        (b"d=40", 400),
        (b"bAAAA", 400),
        (b"2", 400),
        (b"9", 400),
    ],
    ids=["large", "packets", "encoding", "empty", "jsonp", "base64", "ping", "unknown"],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
async def test_a_bad_body_ends_its_session(running: RunningStreams, body: bytes, status: int, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield body

    async with poller(running.port) as client:
        await client.join()
        answer = await client.request("POST", content=pieces() if chunked else body)
        assert answer.status_code == status
        assert (await client.request()).json()["code"] == 1


async def test_the_packets_of_a_body_take_effect_one_after_the_other(running: RunningStreams) -> None:
    async with poller(running.port) as client:
        await client.join()
        wish = '["subscribe",{"statuses":["failed"]}]'
        answer = await client.post("41/noop,", "40/noop,", f"42/noop,1{wish}", "40/word_count,", "40/word_count,")
        assert answer.text == "ok"
        kinds: set[str] = set()
        expected = {"40/noop", "40/word_count", "42/noop", "42/word_count", "43/noop"}
        while not kinds >= expected:
            kinds |= {packet.partition(",")[0] for packet in await client.poll()}
        assert kinds == expected
        assert len(running.hub) == 2
        await client.post("1")


async def test_a_body_that_does_not_come_ends_its_session() -> None:
    async with run_streams(Bounds(frame_seconds=0.3)) as running, poller(running.port) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            f"POST {PATH}?EIO=4&transport=polling&sid={client.sid} HTTP/1.1\r\nHost: x\r\n"
            "Content-Length: 10\r\n\r\n4".encode()
        )
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await wait_until(lambda: not len(running.socketio))


async def test_two_polls_at_a_time_end_the_session(running: RunningStreams) -> None:
    async with poller(running.port) as client:
        await client.join()
        first = asyncio.create_task(client.request())
        await wait_until(lambda: any(one.is_polling for one in running.socketio.clients))
        second = await client.request()
        assert (second.status_code, second.json()["code"]) == (400, 3)
        assert (await first).text == "1"
        assert (await client.request()).json()["code"] == 1


async def test_a_poll_whose_client_goes_ends_the_session(running: RunningStreams) -> None:
    async with poller(running.port) as client:
        await client.join()
        poll = asyncio.create_task(client.request())
        await wait_until(lambda: any(one.is_polling for one in running.socketio.clients))
        poll.cancel()
        await wait_until(lambda: not len(running.socketio))


# Upgrades.


@pytest.mark.parametrize("frames", [[], ["2prob"], ["5"], ["2probe", "2probe"], ["2probe", "6"], [b"2probe"]])
async def test_an_upgrade_that_goes_wrong_leaves_the_polls(running: RunningStreams, frames: list[str | bytes]) -> None:
    async with poller(running.port) as client:
        await client.join()
        async with engine_socket(running.port, query=f"&sid={client.sid}") as socket:
            for frame in frames:
                await socket.say(frame)
            if frames:
                assert await socket.closed() == 1002
        await wait_until(lambda: not any(one.is_upgrading for one in running.socketio.clients))
        running.source.publish(7)
        packets: list[str] = []
        while not any('"task_update"' in packet for packet in packets):
            packets = await client.poll()
        await client.post("1")


async def test_a_session_is_upgraded_once(running: RunningStreams) -> None:
    async with poller(running.port) as client:
        await client.join()
        async with engine_socket(running.port, query=f"&sid={client.sid}") as socket:
            with pytest.raises(InvalidStatus):
                async with engine_socket(running.port, query=f"&sid={client.sid}"):
                    pass
            await socket.say("2probe")
            assert await socket.hear() == "3probe"
            await socket.say("5")
            await wait_until(lambda: any(one.socket.upgraded for one in running.socketio.clients))
            running.source.publish(7)
            while (packet := await socket.hear()) == "6":
                pass
            assert '"task_update"' in packet
            assert (await client.request()).json()["code"] == 0
            with pytest.raises(InvalidStatus):
                async with engine_socket(running.port, query=f"&sid={client.sid}"):
                    pass


# Namespaces.


@pytest.mark.parametrize(
    ("namespace", "auth", "code"),
    [
        ("/admin", None, "invalid_namespace"),
        ("/../", None, "invalid_namespace"),
        ("/" + "x" * KIB, None, "invalid_namespace"),
        ("/noop/x", None, "invalid_namespace"),
        ("/noop", '"x"', "object_expected"),
        ("/noop", "[]", "object_expected"),
        ("/noop", '{"token":7}', "unknown_field"),
        ("/noop", '{"cursor":"9"}', "invalid_cursor"),
        ("/noop", '{"cursor":9}', "invalid_cursor"),
        ("/noop", '{"ids":"7"}', "invalid_filter"),
        ("/noop", '{"ids":[]}', "invalid_filter"),
        ("/noop", '{"ids":[true]}', "invalid_filter"),
        ("/noop", '{"ids":[1e30]}', "invalid_filter"),
        ("/noop", '{"ids":[' + "9" * 5_000 + "]}", "number_out_of_range"),
        ("/noop", "[" * 10_000, "too_deep"),
        ("/noop", '{"ids":[NaN]}', "invalid_json"),
        ("/noop", '{"cursor":"\\u0000"}', "nul_character"),
        ("/noop", '{"cursor":"\\ud800"}', "invalid_unicode"),
        ("/noop", '{"statuses":["weird"]}', "invalid_filter"),
        ("/noop", '{"types":["word_count"]}', "filter_is_fixed"),
        ("/", '{"types":[7]}', "invalid_filter"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_who_is_not_let_in_is_told_why(
    running: RunningStreams, namespace: str, auth: str | None, code: str
) -> None:
    async with engine_socket(running.port) as socket:
        await socket.say(f"40{namespace},{auth or ''}")
        refusal = await socket.refusal()
        assert (refusal["data"]["code"], refusal["data"]["message"]) == (code, refusal["message"])
        assert len(refusal["message"]) < 600
        await socket.join()


async def test_auth_may_be_null(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.say("40/noop,null")
        assert (await socket.hear()).startswith("40/noop,")
        assert (await socket.event())[0] == "snapshot"


async def test_a_second_connect_to_a_namespace_is_ignored(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        await socket.say("40/noop,")
        running.source.publish(7)
        assert (await socket.event())[1]["revision"] == 2
        running.source.publish(7)
        assert (await socket.event())[1]["revision"] == 3


async def test_a_client_has_so_many_namespaces_at_most() -> None:
    async with run_streams(Bounds(namespaces_max=2)) as running, engine_socket(running.port) as socket:
        await socket.join("/noop")
        await socket.join("/")
        await socket.say("40/word_count,")
        assert (await socket.refusal())["data"]["code"] == "too_many_namespaces"
        await socket.say("41/noop,")
        await wait_until(lambda: len(running.hub) == 1)
        await socket.join("/word_count")


async def test_a_namespace_that_was_left_says_nothing(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join("/noop")
        await socket.join("/")
        await socket.say("41/noop,")
        await wait_until(lambda: len(running.hub) == 1)
        running.source.publish(7)
        assert (await socket.hear()).startswith('42["task_update"')


async def test_who_connects_to_no_namespace_is_ended() -> None:
    async with run_streams(Bounds(connect_seconds=0.2)) as running:
        async with engine_socket(running.port) as socket, poller(running.port):
            await socket.closed()
            await wait_until(lambda: not len(running.socketio))
        async with engine_socket(running.port) as socket:
            await socket.join()
            await socket.say("41/noop,")
            await socket.closed()


# Packets and events.


@pytest.mark.parametrize(
    "packet",
    [
        *("", " ", "x", "9", "2", "5", "0", "3x", "3[[[[", "4", "42", "42[", "42{}", "42[]", "42[1]", "42[null]"),
        *(
            "43",
            "44",
            "45",
            "46",
            "47",
            "49",
            '42/noop,["subscribe",',
            '42/other,["subscribe",{}]',
            '42["subscribe",{}]',
        ),
        *('4"x"', '4{"a":1}', "4[[[[", "40/noop,1{}", "41/noop,1", '42/noop,-1["subscribe",{}]'),
        *(f'42/noop,{10**30}["subscribe",{{}}]', '42/noop,²["subscribe",{}]', "\ud7ff", "bAAAA"),
        *('451-/noop,["subscribe",{"_placeholder":true,"num":0}]', '451-/noop,["x",{"_placeholder":true,"num":-1}]'),
        *("45999999999-/noop,[]", '452-["x"]', "461-/noop,1[]"),
        *(b"\x00", b"x" * 60 * KIB),
    ],
    ids=lambda packet: str(packet)[:40],
)
async def test_what_breaks_the_protocol_ends_the_connection(running: RunningStreams, packet: str | bytes) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        await socket.say(packet)
        if packet in ("43", "42/noop"):
            return
        assert await socket.closed() == (1003 if isinstance(packet, bytes) else 1002)


async def test_an_event_before_a_namespace_ends_the_connection(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.say('42/noop,["subscribe",{}]')
        assert await socket.closed() == 1002


async def test_a_frame_of_more_than_64_kib_ends_the_connection(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        await socket.say('42/noop,["' + "x" * 64 * KIB + '"]')
        assert await socket.closed() == 1009


NAMES = ["x" * 10_000, "connect", "disconnect", "error", "__proto__", "constructor", "join", "task_update", "*", ""]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
async def test_other_events_are_unknown(running: RunningStreams, name: str) -> None:
    body = json.dumps([name, {"room": "*"}])
    async with engine_socket(running.port) as socket:
        await socket.join()
        answer = await socket.ask(body)
        assert (answer["ok"], answer["error"]["code"]) == (False, "unknown_event")
        await socket.say(f"42/noop,{body}")
        event, data, cursor = await socket.event()
        assert (event, data["code"], cursor) == ("error", "unknown_event", None)


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        ("", "validation_failed", None),
        (",1,2,3,4,5", "validation_failed", None),
        (',"x"', "object_expected", None),
        (",null", "object_expected", None),
        (',{"room":"*"}', "unknown_field", "/room"),
        (',{"ids":["task:*"]}', "invalid_filter", "/ids/0"),
        (',{"ids":[1.5]}', "invalid_filter", "/ids/0"),
        (f',{{"ids":{list(range(1, 1_002))}}}', "invalid_filter", "/ids"),
        (',{"statuses":["QUEUED"]}', "invalid_filter", "/statuses/0"),
        (',{"cursor":"-1"}', "invalid_cursor", "/cursor"),
        (',{"ids":[NaN]}', "invalid_json", None),
        ("," + "[" * 10_000, "too_deep", None),
        (',{"cursor":"\\u0000"}', "nul_character", "/1/cursor"),
        (',{"cursor":"\\udc00"}', "invalid_unicode", "/1/cursor"),
        (',{"ids":[' + "9" * 5_000 + "]}", "number_out_of_range", None),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_bad_subscription_changes_nothing(
    running: RunningStreams, arguments: str, code: str, field: str | None
) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        answer = await socket.ask(f'["subscribe"{arguments}]')
        error = answer["error"]
        assert (answer["ok"], error["code"], error.get("field")) == (False, code, field)
        running.source.publish(7)
        assert (await socket.event())[1]["revision"] == 2


async def test_ten_bad_events_in_a_row_end_the_connection(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        for _ in range(9):
            assert not (await socket.ask('["x"]'))["ok"]
        assert (await socket.ask('["subscribe",{}]'))["ok"]
        assert (await socket.event())[0] == "snapshot"
        for _ in range(10):
            await socket.say('42/noop,["x"]')
        assert await socket.closed() == 4400


async def test_acknowledgements_that_nobody_asked_for_are_ignored(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        await socket.say("43/noop,7[1]")
        await socket.say("43/noop,7")
        assert (await socket.ask('["subscribe",{}]', ack_id="0"))["ok"]
        assert (await socket.event())[0] == "snapshot"
        assert (await socket.ask('["subscribe",{}]', ack_id="0"))["ok"]


async def test_a_thousand_tasks_may_be_named_each_once(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        ids = [*range(1, 1_001), *range(1, 1_001)]
        assert (await socket.ask(json.dumps(["subscribe", {"ids": ids}])))["ok"]
        _, data, _ = await socket.event()
        assert ([task["id"] for task in data["tasks"]], len(data["missing"])) == ([7], 999)
        running.source.publish(7)
        assert (await socket.event())[1]["revision"] == 2
        running.source.publish(7)
        assert (await socket.event())[1]["revision"] == 3


# Resuming.


async def test_a_client_goes_on_behind_its_cursor(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        running.source.publish(7)
        _, _, cursor = await socket.event()
    running.source.publish(7)
    running.source.publish(8, type_name="word_count")
    async with engine_socket(running.port) as socket:
        await socket.say(f"40/noop,{json.dumps({'cursor': cursor})}")
        assert (await socket.hear()).startswith("40/noop,")
        event, data, place = await socket.event()
        assert (event, data["revision"]) == ("task_update", 3)
        assert place > cursor
        assert (await socket.ask(json.dumps(["subscribe", {"cursor": cursor}])))["ok"]
        assert (await socket.event())[1]["revision"] == 3


@pytest.mark.parametrize("cursor", ["1-999999.0.0", "9999999999999999-0.0.0", "0-0.0.0"])
async def test_a_cursor_that_is_not_known_brings_a_reset(running: RunningStreams, cursor: str) -> None:
    async with engine_socket(running.port) as socket:
        await socket.say(f"40/noop,{json.dumps({'cursor': cursor})}")
        assert (await socket.hear()).startswith("40/noop,")
        assert await socket.event() == ["reset", {"reason": "events_missed"}, None]
        assert (await socket.event())[0] == "snapshot"


# Bounds.


async def test_too_many_messages_are_refused_then_end_the_connection(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        for number in range(60):
            await socket.say(f'42/noop,{number}["subscribe",{{"statuses":["failed"]}}]')
        answers = []
        while '"rate_limited"' not in (packet := await socket.hear()):
            answers.append(packet)
        assert sum(packet.startswith("43") for packet in answers) <= 50
        for number in range(60):
            await socket.say(f'42/noop,{number}["subscribe",{{}}]')
        assert await socket.closed() == 4429


async def test_a_client_that_answers_no_ping_is_ended() -> None:
    async with run_streams(Bounds(ping_interval=1, ping_timeout=0.5)) as running:
        async with engine_socket(running.port) as socket:
            await socket.join()
            started = asyncio.get_running_loop().time()
            await socket.closed()
            assert asyncio.get_running_loop().time() - started < 4
        async with poller(running.port) as client:
            await client.join()
            await wait_until(lambda: not len(running.socketio))


async def test_pings_that_are_answered_keep_a_client() -> None:
    bounds = Bounds(ping_interval=1, ping_timeout=0.5)
    async with run_streams(bounds) as running, engine_socket(running.port) as socket:
        await socket.join()
        for _ in range(3):
            await socket.ping()
        running.source.publish(7)
        assert (await socket.event())[0] == "task_update"


async def test_more_clients_than_there_is_room_for_are_sent_away() -> None:
    async with run_streams(Bounds(polling_max=2, newcomers_max=5, clients_max=6)) as running:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as http:
            answers = [await http.get(f"{PATH}?EIO=4&transport=polling") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 503]
            assert answers[2].headers["retry-after"] == "5"
        async with (
            engine_socket(running.port) as first,
            engine_socket(running.port),
            engine_socket(running.port),
        ):
            await expect_refusal(running.port)
            await first.join()
            async with engine_socket(running.port):
                await expect_refusal(running.port)


async def expect_refusal(port: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with engine_socket(port):
            pass
    assert caught.value.response.status_code == 503


async def test_a_storm_of_handshakes_is_bounded_and_leaves_nothing() -> None:
    async with (
        run_streams(Bounds(newcomers_max=50, connect_seconds=600)) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=30) as http,
    ):
        answers = [await http.get(f"{PATH}?EIO=4&transport=polling") for _ in range(200)]
        assert [answer.status_code for answer in answers].count(200) == 50
        assert len(running.socketio) == 50
        await running.drain()
        assert len(running.socketio) == 0


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_client_that_reads_nothing_is_cut_off(transport: str) -> None:
    async with run_streams(Bounds(send_seconds=0.5)) as running:
        if transport == "websocket":
            await _stop_reading(running)
        else:
            async with poller(running.port) as client:
                await client.join()
                await _publish_until_cut(running)
        assert len(running.hub) == 0


async def _stop_reading(running: RunningStreams) -> None:
    """A client with a small window that reads nothing any more."""
    plain = socket.create_connection(("127.0.0.1", running.port))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    async with engine_socket(running.port, sock=plain, max_queue=1) as client:
        await client.join()
        client.connection.transport.pause_reading()
        await _publish_until_cut(running)
        client.connection.transport.abort()


async def _publish_until_cut(running: RunningStreams) -> None:
    def publish_more() -> bool:
        for task_id in range(200):
            running.source.publish(task_id + 1)
        waiting = [one.socket.queue.qsize() for one in running.socketio.clients]
        assert all(count < 80 for count in waiting)
        return not len(running.socketio)

    await wait_until(publish_more)


# The end of the service.


async def test_an_event_while_the_service_drains_is_refused(running: RunningStreams) -> None:
    async with engine_socket(running.port) as socket:
        await socket.join()
        running.is_draining = True
        error = (await socket.ask('["subscribe",{}]'))["error"]
        assert (error["code"], error["retry_after"]) == ("draining", 1.0)
        await expect_refusal(running.port)
        await socket.say("40/word_count,")
        assert await socket.closed() == 1012
    running.is_draining = False


async def test_a_drain_tells_every_namespace_and_ends_every_client() -> None:
    async with run_streams() as running:
        async with engine_socket(running.port) as socket, engine_socket(running.port) as idle:
            await socket.join("/noop")
            await socket.join("/")
            async with poller(running.port) as client:
                await client.join()
                polling = asyncio.create_task(client.poll())
                await wait_until(lambda: any(one.is_polling for one in running.socketio.clients))
                await asyncio.wait_for(running.drain(), 3)
                assert any('"restarting"' in packet for packet in await polling)
            told = [(await socket.hear()).partition("[")[2] for _ in range(2)]
            assert all(json.loads(f"[{text}")[1]["code"] == "restarting" for text in told)
            assert (await socket.closed(), await idle.closed()) == (1012, 1012)
        await wait_until(lambda: not len(running.socketio))
