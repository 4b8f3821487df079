"""Every setting, with its default and the reason for it.

Imports ``values``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2plearn.config.values import GIB, KIB, MIB, Row

SETTINGS: Final[tuple[Row, ...]] = (
    Row(
        "storage.quota", "size", None, "bytes", none=True,
        reason="Most that fetched and published courses may take together. None by default: on a learner's own "
        "disk the courses they ask for are limited by storage.min_free alone.",
    ),
    Row(
        "storage.min_free", "size", 512 * MIB, "bytes",
        reason="Free space always left on the disk: a full disk breaks other programs, and the catalogue with them.",
    ),
    Row(
        "storage.give", "size", 5 * GIB, "bytes",
        reason="Room given to courses of others, so that they outlive their authors' laptops; a part of storage.quota "
        "where that is set. Never exceeded; 0: keep only your own.",
    ),
    Row(
        "custody.grace", "seconds", 12 * 3600.0, "seconds", least=0.1, most=90 * 86400,
        reason="Silence after which a keeper's copies no longer count and others make new ones. Half a day: a lid "
        "closed overnight moves nothing. Shorter: more traffic; longer: more may go before somebody acts.",
    ),
    Row(
        "custody.heartbeat", "seconds", 10.0, "seconds", least=0.1, most=3600,
        reason="Between two signs of life to each node that keeps the same courses. More often where custody.grace is "
        "short: eight to a grace, two a second at most.",
    ),
    Row(
        "node.on_stop", "text", "stop", "", choices=("stop", "leave"),
        reason="stop is quick and loses nothing, since what is kept is still there at the next start; leave hands "
        "it over first.",
    ),
    Row(
        "node.nice", "count", 0, "", least=0, most=19,
        reason="Niceness of the whole node; Linux derives the disk's priority from it. 0: a get is what its person "
        "waits for. The service of systemd has 5; on battery it is 10 at least.",
    ),
    Row(
        "dht.repeat", "seconds", 12 * 3600.0, "seconds", least=0.1, most=24 * 3600,
        reason="After which the network is told again of each course that is here. Others forget it after 25 hours, so "
        "a half of that outlives a night asleep. Shorter: more traffic.",
    ),
    Row(
        "network.listen", "texts", ("/ip4/0.0.0.0/tcp/4017", "/ip6/::/tcp/4017"), "multiaddrs",
        reason="A fixed port survives restarts, so that addresses others remember stay true. When another home's "
        "node has it and nothing else was asked for, any free port is taken.",
    ),
    Row(
        "network.announce", "texts", (), "multiaddrs",
        reason="Told to others as addresses of this node besides those that it finds out itself: that of a web server "
        "before it (/dns4/NAME/tcp/443/wss), or of a port that somebody forwards by hand.",
    ),
    Row(
        "network.mdns", "flag", True, "",
        reason="Nodes on the same LAN find each other with no configuration and no internet.",
    ),
    Row(
        "network.bootstrap", "texts", (), "multiaddrs with /p2p/",
        reason="Nodes to join through, besides bootstrap_nodes.toml (the shipped one and the home's own).",
    ),
    Row(
        "network.max_connections", "count", 192, "connections", least=4, most=10_000,
        reason="Each costs about 100 KiB and a descriptor; a DHT of thousands of nodes needs some tens.",
    ),
    Row(
        "network.map_port", "flag", True, "",
        reason="Ask the home router (NAT-PMP, UPnP) to let calls through to this node; taken back when it stops.",
    ),
    Row(
        "relay.use", "flag", True, "",
        reason="Behind a router, be called by way of nodes that others can call. Off: only nodes that this one calls "
        "reach it.",
    ),
    Row(
        "relay.serve", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether nodes behind routers are called by way of this one, within the limits below; auto: when "
        "others can call this node. It is what lets two homes talk at all.",
    ),
    Row(
        "relay.places", "count", 128, "nodes", least=0, most=10_000,
        reason="Nodes that can be called by way of this one: each keeps one connection open, which costs 100 KiB.",
    ),
    Row(
        "relay.calls", "count", 32, "calls", least=0, most=1000,
        reason="Relayed calls at once. Each holds up to 64 KiB on its way.",
    ),
    Row(
        "relay.call_seconds", "seconds", 600.0, "seconds", least=10, most=86_400,
        reason="How long a relayed call may last: two nodes find a direct way in seconds, or there is none.",
    ),
    Row(
        "relay.call_bytes", "size", 4 * MIB, "bytes", least=64 * KIB,
        reason="Most that a relayed call may move each way: ratings, posts and a small course, no videos.",
    ),
    Row(
        "relay.rate", "size", 256 * KIB, "bytes a second", least=16 * KIB,
        reason="Most that all relayed calls move together: not to be felt on a home line.",
    ),
    Row(
        "transfer.serve_streams", "count", 32, "streams", least=1, most=1024,
        reason="Courses served at once. More than that and each gets too little to be of use: say busy instead.",
    ),
    Row(
        "transfer.serve_streams_per_peer", "count", 4, "streams", least=1, most=256,
        reason="So that one peer can't take all of transfer.serve_streams.",
    ),
    Row(
        "transfer.peers", "count", 8, "peers", least=1, most=128,
        reason="Peers one get fetches from at once. A few fill any home line; each costs memory in flight.",
    ),
    Row(
        "transfer.memory", "size", 8 * MIB, "bytes", least=1 * MIB,
        reason="Received and not yet written, a get: what the disk may lag behind the network. Caps memory whatever "
        "the course's size.",
    ),
    Row(
        "transfer.stall", "seconds", 10.0, "seconds", least=1, most=3600,
        reason="With no byte for this long a peer's chunks are asked of others. Slow radio links pause for seconds.",
    ),
    Row(
        "transfer.upload_limit", "size", None, "bytes a second", none=True, least=16 * KIB,
        reason="Most that is given to peers beyond the LAN, together: video calls suffer first from a full uplink. "
        "Below 16 KiB a second a chunk takes longer than peers wait.",
    ),
    Row(
        "transfer.download_limit", "size", None, "bytes a second", none=True, least=16 * KIB,
        reason="Most that all gets together ask of peers beyond the LAN.",
    ),
    Row(
        "transfer.limit_lan", "flag", False, "",
        reason="Whether limits and cap hold on the LAN too. It costs no internet line, and is where classes fetch.",
    ),
    Row(
        "transfer.monthly_cap", "size", None, "bytes", none=True,
        reason="Most that is sent and received beyond the LAN in a month, together, as providers count. When it is "
        "used up only the LAN goes on.",
    ),
    Row(
        "transfer.cap_day", "count", 1, "day of the month", least=1, most=31,
        reason="When the month of transfer.monthly_cap begins: the day on the provider's bill.",
    ),
    Row(
        "transfer.battery_upload", "size", 512 * KIB, "bytes a second", none=True, least=16 * KIB,
        reason="transfer.upload_limit while the machine runs on battery, if lower: radio and CPU drain it.",
    ),
    Row(
        "transfer.on_battery", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether the machine runs on battery; auto asks the system (Linux), and takes no answer for no.",
    ),
    Row(
        "transfer.metered", "text", "auto", "", choices=("auto", "yes", "no"),
        reason="Whether the line is paid by volume: then peers beyond the LAN are not served. auto asks "
        "NetworkManager, and takes no answer for no.",
    ),
    Row(
        "log.level", "text", "info", "", choices=("debug", "info", "warning", "error"),
        reason="info is a few lines an hour: starts, stops, courses, what went wrong.",
    ),
    Row(
        "log.format", "text", "text", "", choices=("text", "json"),
        reason="text is for people; json is one object a line, for programs that collect logs.",
    ),
    Row(
        "metrics.listen", "text", "off", "port, or address:port",
        reason="Where Prometheus reads /metrics over TCP; a port alone is this machine's loopback. Off: only the local "
        "API has them.",
    ),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Row]] = {row.name: row for row in SETTINGS}
