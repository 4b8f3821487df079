"""Addresses among the settings: what a node listens on and tells others, and words for those that can't be used.

A mistake is told with the file (or variable, or option) and the key it stands in, before a node starts, and by whoever
shows the settings.

Imports ``config``, ``errors``, ``net`` and ``web``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from p2plearn.config import Settings, environment_name
from p2plearn.errors import UsageProblem
from p2plearn.net.addresses import read_address
from p2plearn.net.bootstrap import read_addresses
from p2plearn.web.metrics_port import parse_listen

if TYPE_CHECKING:
    from libp2p.host.basic_host import BasicHost


def check_addresses(settings: Settings) -> None:
    """Raise UsageProblem for the first address that no node could use."""
    for text in settings.texts("network.listen"):
        _multiaddr(text, settings)
    announced(settings)
    read_addresses(settings.texts("network.bootstrap"), named(settings, "network.bootstrap"))
    where = settings.text("metrics.listen")
    if where != "off":
        parse_listen(where, named(settings, "metrics.listen"))


def named(settings: Settings, name: str) -> str:
    """A setting, and where its value comes from, for the beginning of a sentence."""
    source = settings.setting(name).source
    return f"--{name.rpartition('.')[2]}" if source == "the command line" else f"{name} in {source}"


def announced(settings: Settings) -> tuple[Multiaddr, ...]:
    """What ``network.announce`` has, without ``/p2p/``; raises UsageProblem."""
    where = named(settings, "network.announce")
    return tuple(read_address(text, where) for text in settings.texts("network.announce"))


async def listen(host: BasicHost, settings: Settings) -> None:
    """Listen on what was asked for; a default port that another node has gives way to any free one.

    Raises UsageProblem when an address that was asked for can't be had, or none at all.
    """
    swarm = host.get_network()
    wanted = [_multiaddr(text, settings) for text in settings.texts("network.listen")]
    await swarm.listen(*wanted)
    failed = [addr for addr in wanted if str(addr) not in swarm.listeners]
    if failed and not settings.is_default("network.listen"):
        raise UsageProblem(
            f"Can't listen on {', '.join(map(str, failed))}: the port is taken, or the address isn't this machine's.",
            f"Choose another with {written(settings, '/ip4/0.0.0.0/tcp/PORT')} (0 for any free port).",
        )
    if failed:
        free = [Multiaddr(str(addr).rpartition("/")[0] + "/0") for addr in failed]
        await swarm.listen(*free)
    if not swarm.listeners:
        how = written(settings, "/ip4/ADDRESS/tcp/PORT")
        raise UsageProblem("No address can be listened on.", f"Name one with {how}.")


def written(settings: Settings, address: str) -> str:
    """How ``address`` is written to be listened on, in the place where ``network.listen`` was given."""
    source = settings.setting("network.listen").source
    if source in {"default", "the command line"}:
        return f"--listen {address}"
    if source == environment_name("network.listen"):
        return f"{source}={address}"
    return f'listen = ["{address}"] under [network]'


def _multiaddr(text: str, settings: Settings) -> Multiaddr:
    try:
        address = Multiaddr(text)
        host, *port = [part.name for part in address.protocols()]
        if host not in {"ip4", "ip6"} or port not in (["tcp"], ["tcp", "ws"]):
            raise ValueError
    except Exception:  # the library raises whatever a part's codec does, in words of its own
        hint = (
            "It takes an IP address of this machine and a TCP port: "
            f"{written(settings, '/ip4/0.0.0.0/tcp/4017')} (0.0.0.0 stands for every address it has, port 0 for any "
            "that is free)."
        )
        if text.endswith(("/wss", "/tls/ws")):
            hint = "Listen on …/ws, have a web server pass calls on to it, and name its address in network.announce."
        where = named(settings, "network.listen")
        raise UsageProblem(f"{where}: “{text}” is no address to listen on.", hint) from None
    return address
