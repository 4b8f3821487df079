"""Commands that make a node a service of systemd: print its unit, install it, remove it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from p2plearn import units
from p2plearn.commands.scope import Group, Scope, pass_scope
from p2plearn.errors import P2plearnError, UsageProblem

_SYSTEM_FOLDER: Final = Path("/etc/systemd/system")


_ELSEWHERE: Final = (
    "Install p2plearn where all can read it: sudo python3 -m venv /opt/p2plearn, as docs/operations.md says."
)

_UNHEARD: Final = (
    "systemd can't be spoken to from here: under su or sudo, in a container and over some remote logins there is no "
    "session of yours. Log in as the user whose node it is; or run it without systemd: p2plearn node start --detach"
)


@click.group(cls=Group)
def service() -> None:
    """Run the node as a service of systemd, from login (or boot) on."""


_system_option = click.option("--system", is_flag=True, help="The machine's node instead of yours (needs root).")


@service.command("print")
@_system_option
@pass_scope
def service_print(scope: Scope, *, system: bool) -> None:
    """Print the unit that `service install` would write."""
    from p2plearn import terminal

    text = _unit(scope, system=system)
    if system and (hidden := _out_of_sight()):
        terminal.note(f"This unit won't start: it sees nothing of {hidden[0]}, where its program is. {_ELSEWHERE}")
    scope.emit({"unit": text, "path": str(_path(system=system))}) if scope.as_json else click.echo(text, nl=False)


@service.command("install")
@_system_option
@click.option("--no-start", is_flag=True, help="Only write the unit; neither enable nor start it.")
@pass_scope
def service_install(scope: Scope, *, system: bool, no_start: bool) -> None:
    """Write the unit, enable it and start the node."""
    from p2plearn.lock import refuse_if_held

    if system and (hidden := _out_of_sight()):
        raise UsageProblem(f"A machine's node sees nothing of {hidden[0]}, where its program is.", _ELSEWHERE)
    if system and os.geteuid() != 0:
        raise UsageProblem("A machine's service can only be installed by root.", "Put sudo in front, or drop --system.")
    if not system and not no_start:
        refuse_if_held(scope.home.lock)
    if not no_start and shutil.which("systemctl") is None:
        raise P2plearnError("There is no systemctl here: this system is not run by systemd.", "See `node start -h`.")
    path = _path(system=system)
    text = _unit(scope, system=system)
    before = path.read_text(encoding="utf-8") if path.exists() else None
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if not no_start:
        try:
            _systemctl(system, "daemon-reload")
        except P2plearnError as error:
            _take_back(path, before, made)
            raise P2plearnError(error.message, "Nothing was installed. " + _UNHEARD) from None
        _systemctl(system, "enable", "--now", units.NAME)
    _tell(scope, path, started=not no_start, system=system)


@service.command("remove")
@_system_option
@pass_scope
def service_remove(scope: Scope, *, system: bool) -> None:
    """Stop the service and delete its unit; the home and all that is in it stay."""
    path = _path(system=system)
    if not path.exists():
        other = "Is it the machine's, add --system." if not system else "Is it your own, leave out --system."
        raise UsageProblem(
            f"No service is installed: there is no {path}.",
            f"{other} A node that runs without a service is stopped by: p2plearn node stop",
        )
    if system and os.geteuid() != 0:
        raise UsageProblem("A machine's service can only be removed by root.", "Put sudo in front, or drop --system.")
    spoken_to = shutil.which("systemctl") is not None
    unheard: P2plearnError | None = None
    try:
        if spoken_to:
            _systemctl(system, "disable", "--now", units.NAME)
    except P2plearnError as error:  # without a session of one's own, the unit can go all the same
        unheard = error
    for link in path.parent.glob(f"*.wants/{units.NAME}"):  # left when systemd didn't disable it
        link.unlink()
    path.unlink()
    if spoken_to and unheard is None:
        _systemctl(system, "daemon-reload")
    scope.emit({"removed": str(path)}) if scope.as_json else click.echo(f"Removed {path}; the node's home stays.")
    if unheard is not None:
        from p2plearn import terminal

        terminal.note(f"{unheard.message} {scope.said('If systemd runs the node now, stop it: p2plearn node stop')}")


def _take_back(path: Path, before: str | None, made: list[Path]) -> None:
    """Leave unit and folders as they were before an install that systemd didn't hear of. ``made``: the inner first."""
    if before is not None:
        path.write_text(before, encoding="utf-8")
        return
    path.unlink()
    with contextlib.suppress(OSError):  # somebody else has put something in
        for folder in made:
            folder.rmdir()


def _path(*, system: bool) -> Path:
    if system:
        return _SYSTEM_FOLDER / units.NAME
    # Where systemd looks for a user's units: XDG's folder, not platformdirs' (macOS has no systemd).
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "systemd" / "user" / units.NAME


def _unit(scope: Scope, *, system: bool) -> str:
    from p2plearn import background

    if system:
        home = Path(scope.home_option) if scope.home_option else Path(units.SYSTEM_HOME)
        if home != Path(units.SYSTEM_HOME):
            raise UsageProblem(f"The home of a machine's node is {units.SYSTEM_HOME}.", "Leave out --home.")
        return units.system_unit(background.command(home, ["node", "start"]), background.source_environment())
    return units.user_unit(background.command(scope.home.path, ["node", "start"]), background.source_environment())


def _out_of_sight() -> list[str]:
    from p2plearn import background

    found = background.source_environment().get("PYTHONPATH", "").split(os.pathsep)
    return units.out_of_sight([sys.executable, os.path.realpath(sys.executable), *found])


def _systemctl(system: bool, *words: str) -> None:
    command = ["systemctl", *([] if system else ["--user"]), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise P2plearnError(
            f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}.",
            f"Its journal may say why: journalctl {'' if system else '--user '}-u {units.NAME} -e",
        )


def _tell(scope: Scope, path: Path, *, started: bool, system: bool) -> None:
    if scope.as_json:
        scope.emit({"path": str(path), "started": started})
        return
    click.echo(f"Wrote {path}" + (" and started the node." if started else "."))
    if system:
        click.echo(f"Speak to it with: sudo p2plearn --home {units.SYSTEM_HOME} node status")
    else:
        click.echo("It runs while you are logged in. To run it from boot on: loginctl enable-linger")
