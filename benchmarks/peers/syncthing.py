"""Syncthing (TLS 1.3, no discovery, relays or port mapping), driven by its REST interface.

It knows no fetching by hash: the fetcher introduces everybody to everybody and they share one folder. Debian has it.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from peers import Peer

KEY = "benchmark"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _call(port: int, path: str, body: object = None, method: str = "") -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rest/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-API-Key": KEY},
        method=method or ("GET" if body is None else "POST"),
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read() or b"null")


class Syncthing(Peer):
    """One instance; its address names the REST port, the port it syncs on, and its device."""

    name = "syncthing"

    def __init__(self, room: Path) -> None:
        self.room = room
        home = room / "home"
        self._rest, listen = _free_port(), _free_port()
        made = ["syncthing", "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._configure(home / "config.xml", listen)
        served = ["syncthing", "serve", f"--home={home}", "--no-browser", "--no-restart", "--no-upgrade"]
        self._process = subprocess.Popen(served, stdout=subprocess.DEVNULL)
        device = self._when_up()
        self.address = f"{self._rest},{listen},{device}"
        self._bytes = 0

    @staticmethod
    def installed() -> bool:
        """Whether the program is there."""
        return shutil.which("syncthing") is not None

    def _configure(self, file: Path, listen: int) -> None:
        text = file.read_text()
        for pattern, value in (
            (r"<address>127.0.0.1:\d+</address>", f"<address>127.0.0.1:{self._rest}</address>"),
            (r"<apikey>[^<]*</apikey>", f"<apikey>{KEY}</apikey>"),
            (r"<listenAddress>[^<]*</listenAddress>", f"<listenAddress>tcp://127.0.0.1:{listen}</listenAddress>"),
            (r"<(\w+AnnounceEnabled|relaysEnabled|natEnabled|crashReportingEnabled)>true", r"<\1>false"),
            (r"<reconnectionIntervalS>\d+", "<reconnectionIntervalS>1"),
            (r"<urAccepted>0", "<urAccepted>-1"),
        ):
            text = re.sub(pattern, value, text)
        file.write_text(text)

    def _when_up(self) -> str:
        while True:
            try:
                return str(_call(self._rest, "system/status")["myID"])
            except OSError:
                time.sleep(0.02)

    def pids(self) -> list[int]:
        """The process, and the one that it watches over."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, children.split())]

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = _call(self._rest, "db/status?folder=course")
        return found

    def publish(self, source: Path) -> str:
        """Share the folder that holds nothing but the source; its size is all that the fetcher needs."""
        # A marker of its own would be written beside the source; the source itself will do.
        self._share(source.parent, [self.address], type="sendonly", markerName=source.name)
        while (status := self._status())["state"] != "idle" or not status["globalBytes"]:
            time.sleep(0.05)
        return str(status["globalBytes"])

    def _share(self, path: Path, everyone: list[str], **more: object) -> None:
        devices = [{"deviceID": one.split(",")[2]} for one in everyone]
        folder = {"id": "course", "path": str(path), "fsWatcherEnabled": False, "rescanIntervalS": 0}
        _call(self._rest, "config/folders", {**folder, "devices": devices, **more})

    def begin_fetch(self, name: str, dest: Path, others: list[str]) -> None:
        """Introduce all to all and share the folder."""
        self._bytes = int(name)
        everyone = [self.address, *others]
        publisher = int(others[0].split(",")[0])
        for rest in (publisher, self._rest):
            for one in everyone:
                _, listen, device = one.split(",")
                address = f"tcp://127.0.0.1:{listen}"
                _call(rest, "config/devices", {"deviceID": device, "addresses": [address]})
        devices = [{"deviceID": one.split(",")[2]} for one in everyone]
        _call(publisher, "config/folders/course", {"devices": devices}, "PATCH")
        self._share(dest, everyone)

    def finish_fetch(self) -> None:
        """Wait until nothing is needed any more."""
        while True:
            status = self._status()
            if status["globalBytes"] == self._bytes and not status["needBytes"] and status["state"] == "idle":
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
