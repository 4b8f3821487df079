"""Who may knock, and how often we do: decided without sockets, on a clock of the test's own."""

from __future__ import annotations

import contextlib

from multiaddr import Multiaddr

from p2plearn.net.limits import ConnectionLimits
from p2plearn.net.threshold import Threshold

LIMITS = ConnectionLimits(pending=3, pending_per_ip=2, per_ip=2, arrivals_burst=5, arrivals_per_second=1.0)


def test_handshakes_of_one_address_and_of_all_are_bounded_while_they_last() -> None:
    threshold = Threshold(LIMITS)
    with contextlib.ExitStack() as stack:
        for ip in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            assert threshold.may_knock(ip, 0.0)
            stack.enter_context(threshold.knocking(ip))
        assert not threshold.may_knock("192.0.2.1", 0.0)
        assert not threshold.may_knock("192.0.2.3", 0.0)
    assert threshold.may_knock("192.0.2.1", 0.0)


def test_connections_that_last_take_places_of_their_address_and_free_them() -> None:
    threshold = Threshold(LIMITS)
    with threshold.inside("192.0.2.1"):
        with threshold.inside("192.0.2.1"):
            assert not threshold.may_knock("192.0.2.1", 0.0)
            assert threshold.may_knock("192.0.2.2", 0.0)
        assert threshold.may_knock("192.0.2.1", 0.0)


def test_an_address_that_comes_too_often_waits_and_this_machine_is_spared() -> None:
    threshold = Threshold(LIMITS)
    assert [threshold.may_knock("192.0.2.1", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert threshold.may_knock("192.0.2.1", 1.0)
    assert all(threshold.may_knock("127.0.0.1", 0.0) for _ in range(50))


def test_dials_to_one_address_are_spread_out_whatever_ports_are_named() -> None:
    threshold = Threshold(ConnectionLimits(dials_per_ip_burst=2, dials_per_ip_per_second=0.5))
    waits = [threshold.wait_to_dial(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}"), 0.0) for port in range(1, 5)]
    assert waits == [0.0, 0.0, 2.0, 4.0]
    assert threshold.wait_to_dial(Multiaddr("/ip4/192.0.2.2/tcp/1"), 0.0) == 0.0
    assert threshold.wait_to_dial(Multiaddr("/ip4/127.0.0.1/tcp/1"), 0.0) == 0.0


def test_dials_that_nobody_waits_for_any_more_put_off_no_other() -> None:
    """Answers that name thousands of addresses, and a few seconds for each: the rest of them stayed booked."""
    threshold = Threshold(ConnectionLimits(dials_burst=256, dials_per_second=32.0))
    for number in range(10_000):
        address = Multiaddr(f"/ip4/198.51.{number // 250}.{1 + number % 250}/tcp/1")
        threshold.wait_to_dial(address, 0.0)
        if number >= 256:
            threshold.not_dialled(address, 4.0 * (number // 1_000))
    assert threshold.wait_to_dial(Multiaddr("/ip4/192.0.2.1/tcp/1"), 40.0) == 0.0
