"""systemd's units: words survive its quoting, and systemd itself finds nothing to say against them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from p2plearn import units
from p2plearn.cli import main
from p2plearn.errors import HomeGone
from p2plearn.units import system_unit, user_unit

COMMAND = ["/usr/bin/python3", "-P", "-m", "p2plearn", "--home", '/home/a b/100%/$x"y\\z', "node", "start"]


def line(text: str, name: str) -> str:
    (found,) = [each.removeprefix(f"{name}=") for each in text.splitlines() if each.startswith(f"{name}=")]
    return found


def test_words_are_quoted_as_systemd_reads_them() -> None:
    start = line(user_unit(COMMAND, {}), "ExecStart")
    assert start.startswith("/usr/bin/python3 -P -m p2plearn --home ")
    assert start.endswith(r'"/home/a b/100%%/$$x\"y\\z" node start')
    assert line(user_unit(COMMAND, {"PYTHONPATH": "/a b/50%"}), "Environment") == '"PYTHONPATH=/a b/50%%"'
    with pytest.raises(ValueError, match="one line"):
        user_unit(["a\nUser=root"], {})


@pytest.mark.parametrize("unit", [user_unit, system_unit])
def test_both_say_when_they_are_ready_are_watched_and_limited(unit: object) -> None:
    text = unit(COMMAND, {})  # type: ignore[operator]
    assert line(text, "Type") == "notify"
    assert float(line(text, "WatchdogSec")) > 0
    assert line(text, "Restart") == "on-failure"
    assert int(line(text, "RestartPreventExitStatus")) == HomeGone.exit_code
    assert int(line(text, "LimitNOFILE")) >= 4096
    assert line(text, "NoNewPrivileges") == "yes"
    assert "User=root" not in text


def test_a_machines_node_has_a_home_of_its_own_and_sees_nothing_else() -> None:
    text = system_unit(["/usr/bin/python3", "-m", "p2plearn"], {})
    for setting in ("DynamicUser", "ProtectHome", "PrivateDevices", "ProtectKernelTunables"):
        assert line(text, setting) == "yes"
    assert line(text, "ProtectSystem") == "strict"
    assert line(text, "CapabilityBoundingSet") == ""
    assert f"/var/lib/{line(text, 'StateDirectory')}" == units.SYSTEM_HOME


def test_a_machines_node_is_not_begun_from_where_it_can_not_see_its_own_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = ["/root/.pyenv/bin/python", "/home/ada/venv/bin/python", "/tmp/v/bin/python", "/root"]
    assert units.out_of_sight([*hidden, "/opt/p2plearn/bin/python", "/rooted/python", "/usr/bin/python3"]) == hidden
    monkeypatch.setattr("sys.executable", hidden[1])
    assert main(["service", "install", "--system", "--no-start"]) == 2
    assert "sees nothing of /home/ada/venv/bin/python" in capsys.readouterr().err
    assert main(["service", "print", "--system"]) == 0
    assert "/home/ada/venv/bin/python" in capsys.readouterr().err


@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, scope: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    python = shutil.which("python3") or "/bin/true"
    make = user_unit if scope == "user" else system_unit
    file = tmp_path / units.NAME
    file.write_text(make([python, "-m", "p2plearn"], {}))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--{scope}", file],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin"},
    )
    complaints = [each for each in done.stderr.splitlines() if units.NAME in each]
    assert not complaints


def test_the_command_writes_and_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))  # no systemctl there
    home = tmp_path / "home"
    path = tmp_path / "config" / "systemd" / "user" / units.NAME
    assert main(["--home", str(home), "service", "install", "--no-start"]) == 0
    written = path.read_text()
    assert f"--home {home} node start" in line(written, "ExecStart")
    capsys.readouterr()
    assert main(["--home", str(home), "service", "print", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == written
    assert main(["--home", str(home), "service", "install"]) == 1
    assert "no systemctl" in capsys.readouterr().err
    assert main(["--home", str(home), "service", "print", "--system"]) == 2
    assert main(["--home", str(home), "service", "remove"]) == 0
    assert not path.exists()
    assert main(["--home", str(home), "service", "remove"]) == 2


def test_the_unit_can_be_removed_where_systemd_does_not_hear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2; exit 1\n")
    (programs / "systemctl").chmod(0o700)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(programs))
    folder = tmp_path / "config" / "systemd" / "user"
    home = str(tmp_path / "home")
    assert main(["--home", home, "service", "install", "--no-start"]) == 0
    enabled = folder / "default.target.wants" / units.NAME
    enabled.parent.mkdir()
    enabled.symlink_to(folder / units.NAME)
    capsys.readouterr()
    assert main(["--home", home, "service", "remove"]) == 0
    said = capsys.readouterr()
    assert f"Removed {folder / units.NAME}" in said.out
    assert "Failed to connect to bus" in said.err
    assert f"p2plearn --home {home} node stop" in said.err
    assert not (folder / units.NAME).exists()
    assert not enabled.is_symlink()
