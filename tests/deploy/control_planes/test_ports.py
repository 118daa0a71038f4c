"""Ports are free, different from each other, and a taken one is said to be taken."""

import socket

import pytest

from cluster_gateway.control_planes import PortInUseError, pick_free_ports, require_free_port


def test_picked_ports_differ_and_can_be_listened_on() -> None:
    ports = pick_free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_port_in_use_is_one_clear_sentence() -> None:
    (port,) = pick_free_ports(1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUseError) as caught:
        require_free_port(port)
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use: stop the program that listens there or choose another port"
    )


def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    (port,) = pick_free_ports(1)
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        accepted, _ = server.accept()
        accepted.close()  # this side closes first, so its port lingers
        client.recv(1)
    assert require_free_port(port) == port
