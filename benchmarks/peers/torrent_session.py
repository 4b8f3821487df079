"""A libtorrent session told by lines what to do, words parted by tabs.

``publish PATH`` answers a magnet link, ``fetch MAGNET DEST PORT...`` ``done``, ``sent`` a number of bytes.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import libtorrent as lt


def _session() -> Any:
    off = dict.fromkeys(
        ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp", "enable_outgoing_utp", "enable_incoming_utp"),
        False,
    )
    plain = int(lt.enc_policy.disabled)
    interest = lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification
    return lt.session(
        {
            **off,
            "listen_interfaces": "127.0.0.1:0",
            "allow_multiple_connections_per_ip": True,
            "in_enc_policy": plain,
            "out_enc_policy": plain,
            "alert_mask": interest | lt.alert.category_t.error_notification,
        }
    )


def _add(session: Any, params: Any, folder: str) -> Any:
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return session.add_torrent(params)


def _until_seeding(session: Any, handle: Any) -> None:
    while not handle.status().is_seeding:
        session.wait_for_alert(20)
        session.pop_alerts()


def _publish(session: Any, source: str) -> tuple[Any, str]:
    files = lt.file_storage()
    lt.add_files(files, source)
    torrent = lt.create_torrent(files, 0, lt.create_torrent.v2_only)
    lt.set_piece_hashes(torrent, os.path.dirname(source))
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent.generate())
    params.flags |= lt.torrent_flags.seed_mode
    handle = _add(session, params, os.path.dirname(source))
    _until_seeding(session, handle)
    return handle, lt.make_magnet_uri(params.ti)


def _fetch(session: Any, magnet: str, dest: str, ports: list[str]) -> Any:
    handle = _add(session, lt.parse_magnet_uri(magnet), dest)
    for port in ports:
        handle.connect_peer(("127.0.0.1", int(port)))
    _until_seeding(session, handle)
    handle.flush_cache()  # it calls itself a seed before the last pieces are written
    while True:
        session.wait_for_alert(20)
        if any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
            return handle


def _serve() -> None:
    session, handle = _session(), None
    while not session.listen_port():
        time.sleep(0.01)
    print(session.listen_port(), flush=True)
    for line in sys.stdin:
        verb, *words = line.rstrip("\n").split("\t")
        if verb == "publish":
            handle, magnet = _publish(session, words[0])
            print(magnet, flush=True)
        elif verb == "fetch":
            handle = _fetch(session, words[0], words[1], words[2:])
            print("done", flush=True)
        elif verb == "sent" and handle is not None:
            print(handle.status().total_payload_upload, flush=True)


if __name__ == "__main__":
    _serve()
