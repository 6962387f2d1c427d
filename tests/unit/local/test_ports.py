"""Ports that are given out are given to nobody else, and can be listened at by those they are for."""

import asyncio
import socket
import subprocess
import sys

import pytest

from headrace.local.process import LOOPBACK, free_port


def test_a_port_is_kept_from_others() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))


async def test_a_server_in_another_process_can_listen_there() -> None:
    port = free_port()
    script = (
        f"import asyncio; asyncio.run(asyncio.start_server(lambda r, w: None, '{LOOPBACK}', {port})); print('listens')"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "listens\n", done.stderr


def test_no_port_is_given_out_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
