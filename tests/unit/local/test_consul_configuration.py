"""How a real Consul is configured where there is one."""

from pathlib import Path

from headrace.local.consul import consul_configuration


def test_a_consul_keeps_to_loopback_and_to_its_own_ports() -> None:
    configuration = consul_configuration(Path("data"), port=4000, version=(1, 20))
    assert (configuration["bind_addr"], configuration["client_addr"]) == ("127.0.0.1", "127.0.0.1")
    ports = configuration["ports"]
    assert isinstance(ports, dict)
    assert ports["http"] == 4000
    assert ports["grpc_tls"] == -1


def test_an_older_consul_does_not_hear_of_a_port_that_it_does_not_know() -> None:
    ports = consul_configuration(Path("data"), port=4000, version=(1, 9))["ports"]
    assert isinstance(ports, dict)
    assert "grpc_tls" not in ports
