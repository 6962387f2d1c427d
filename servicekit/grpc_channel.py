"""gRPC channels between our services, all with the same options."""

import grpc

# A request may have 32 MiB, a batch one item of 8 MiB beside others: both fit with their envelope.
DEFAULT_MESSAGE_BYTES = 40 * 1024 * 1024
KEEPALIVE_MILLISECONDS = 5_000
KEEPALIVE_TIMEOUT_MILLISECONDS = 3_000


def message_size_options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]


def open_channel(address: str, *, max_message_bytes: int = DEFAULT_MESSAGE_BYTES) -> grpc.aio.Channel:
    """Open a channel to `host:port`. It finds a dead peer within 8 s and dials one that came back within 2 s."""
    options = [
        *message_size_options(max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Our services are on a private network; a proxy for the Internet is of no use there.
        ("grpc.enable_http_proxy", 0),
        # Each channel has its own connection, and with it its own back-off.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(address, options=options)
