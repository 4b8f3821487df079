"""The files that name the first nodes, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2plearn.errors import UsageProblem
from p2plearn.net.bootstrap import gather, read_file

PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
OTHER = "12D3KooWBJkYVjzpvPpZzgyUuUMXtDrBDsBRVWVgVBVBcNpKCgqP"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bootstrap_nodes.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_missing_and_an_empty_file_name_nobody(tmp_path: Path) -> None:
    assert read_file(tmp_path / "none.toml") == []
    assert read_file(write(tmp_path, "# nobody yet\n")) == []


def test_nodes_with_and_without_name_by_ip_and_dns(tmp_path: Path) -> None:
    nodes = read_file(
        write(
            tmp_path,
            f'[[node]]\naddress = "/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"\nname = "school"\n'
            f'[[node]]\naddress = "/dns4/node.example.org/tcp/4001/p2p/{PEER}"\n',
        )
    )
    assert [(str(n.peer.peer_id), str(n.peer.addrs[0]), n.name) for n in nodes] == [
        (PEER, "/ip4/192.0.2.7/tcp/4001", "school"),
        (PEER, "/dns4/node.example.org/tcp/4001", ""),
    ]


def test_the_same_peer_twice_is_one_node_with_both_addresses(tmp_path: Path) -> None:
    path = write(tmp_path, f'[[node]]\naddress = "/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"\nname = "x"\n')
    nodes = gather([path], [f"/ip6/2001:db8::7/tcp/4001/p2p/{PEER}"])
    assert len(nodes) == 1
    assert nodes[0].name == "x"
    assert [str(a) for a in nodes[0].peer.addrs] == ["/ip6/2001:db8::7/tcp/4001", "/ip4/192.0.2.7/tcp/4001"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[node]\n", ["no valid TOML", "line 1"]),
        ("[node]\naddress = 'x'\n", ["list of tables"]),
        ("[[node]]\nname = 'x'\n", ["node 1", "no address"]),
        ("[[node]]\naddress = 7\n", ["node 1", "no address"]),
        ("[[node]]\naddress = 'x'\nport = 1\n", ["node 1", "port"]),
        ("nodes = []\n", ["“nodes”"]),
        pytest.param("node = " + "[" * 10_000, ["TOML"], id="deep"),
        ("[[node]]\naddress = 'nonsense'\n", ["node 1", "no address of a node"]),
        ("[[node]]\naddress = '/ip4/192.0.2.7/tcp/4001'\n", ["node 1", "/p2p/"]),
        (f"[[node]]\naddress = '/ip4/192.0.2.7/udp/4001/p2p/{PEER}'\n", ["node 1", "TCP"]),
        (f"[[node]]\naddress = '/ip4/0.0.0.0/tcp/4001/p2p/{PEER}'\n", ["node 1", "dialled"]),
        (f"[[node]]\naddress = '/ip4/192.0.2.7/tcp/4001/p2p/{PEER}'\nname = 3\n", ["name is no text"]),
    ],
)
def test_a_mistake_is_named_with_file_entry_and_reason(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageProblem) as caught:
        read_file(path)
    assert str(path) in caught.value.message
    for word in words:
        assert word in caught.value.message


def test_a_bad_flag_names_the_flag() -> None:
    with pytest.raises(UsageProblem, match="--bootstrap"):
        gather([], ["/ip4/1.2.3.4/tcp/99999/p2p/" + OTHER])
