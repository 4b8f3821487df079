"""Settings: every source, their order, and what a mistake in one of them says."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2plearn import config
from p2plearn.config import (
    SETTINGS,
    Home,
    Settings,
    choose_home,
    environment_name,
    not_in_force,
    parse_seconds,
    parse_size,
    values,
)
from p2plearn.errors import P2plearnError, Refused, UsageProblem


def load(home: Path, toml: str = "", flags: dict[str, object] | None = None, **environment: str) -> Settings:
    if toml:
        (home / "config.toml").write_text(toml, encoding="utf-8")
    return Settings.load(home, flags, environment)


def test_every_setting_has_a_reason_a_sound_default_and_a_variable_of_its_own() -> None:
    assert len({environment_name(row.name) for row in SETTINGS}) == len(SETTINGS)
    settings = Settings()
    for setting in settings:
        assert len(setting.row.reason) > 20, setting.row.name
        again = Settings.load(Path("/nonexistent"), {setting.row.name: setting.value}, {})
        assert again.setting(setting.row.name).value == setting.value


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    toml = '[storage]\nquota = "5 GiB"\nmin_free = "1 GiB"\n[network]\nmdns = false\n'
    settings = load(tmp_path, toml, {"network.mdns": True}, P2PLEARN_STORAGE_QUOTA="2GiB")
    assert settings.size("storage.quota") == 2 * config.GIB
    assert settings.setting("storage.quota").source == "P2PLEARN_STORAGE_QUOTA"
    assert settings.size("storage.min_free") == config.GIB
    assert settings.setting("storage.min_free").source == str(tmp_path / "config.toml")
    assert settings.flag("network.mdns") is True
    assert settings.setting("network.mdns").source == "the command line"
    assert settings.is_default("network.listen")
    assert not settings.is_default("network.mdns")


def test_dotted_keys_and_native_types_work_too(tmp_path: Path) -> None:
    settings = load(tmp_path, 'storage.quota = 4096\ntransfer.stall = 5\nnetwork.listen = ["/ip4/127.0.0.1/tcp/0"]\n')
    assert settings.size("storage.quota") == 4096
    assert settings.seconds("transfer.stall") == 5.0
    assert settings.texts("network.listen") == ("/ip4/127.0.0.1/tcp/0",)


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        load(tmp_path, '[storage]\nqouta = "5 GiB"\n')
    assert "'storage.qouta'" in caught.value.message
    assert "'storage.quota'" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("bogus.x", "`p2plearn config show` lists them all."),
        ("storage.upload_limit", "Did you mean 'transfer.upload_limit'?"),
        ("quota", "Did you mean 'storage.quota'?"),
        ("network.anounce", "Did you mean 'network.announce'?"),
    ],
)
def test_only_what_is_near_is_guessed(tmp_path: Path, key: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load(tmp_path, f"{key} = 1\n")
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('custody.grace = "0s"', "0s is out of range: 100 ms to 90 days."),
        ("custody.grace = 0", "0.0 is out of range: 100 ms to 90 days."),
        ('dht.repeat = "25h"', "25h is out of range: 100 ms to 1 day."),
        ("relay.call_seconds = 5", "5.0 is out of range: 10 s to 1 day."),
        ("transfer.upload_limit = 5", "5 is out of range: 16 KiB or more."),
        ("network.max_connections = 2", "2 is out of range: 4 to 10,000 connections."),
        ("storage.quota = -1", "-1 is out of range: 0 B or more."),
    ],
)
def test_a_range_is_said_in_the_units_that_are_written(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load(tmp_path, toml)
    assert caught.value.message.endswith(words)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (43_200.0, "12 h"), (86_400.0, "1 day"), (7_776_000.0, "90 days"), (5400.0, "90 min"), (90.0, "90 s"),
        (0.5, "500 ms"), (0.0, "0 s"), (1.5, "1.5 s"), (7_775_999.0, "7775999 s"),
    ],
)  # fmt: skip
def test_a_length_of_time_is_shown_in_the_unit_that_fits_and_can_be_written_so(seconds: float, said: str) -> None:
    assert values.spell(seconds, "seconds") == said
    assert parse_seconds(said) == seconds


def test_the_ends_of_every_range_can_be_written_as_they_are_said(tmp_path: Path) -> None:
    for row in SETTINGS:
        if row.kind in {"size", "seconds"}:
            for number in (row.least, row.most):
                if number < 2**62:
                    said = values._written(number, row)
                    assert values.parse(row, said) == pytest.approx(number), (row.name, said)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('storage.quota = "five"', "storage.quota"),
        ("storage.quota = -1", "out of range"),
        ("storage.min_free = true", "no number"),
        ("network.mdns = 3", "neither true nor false"),
        ("network.listen = [1]", "no list of texts"),
        ("network.max_connections = 2", "out of range"),
        ('network.max_connections = "12x"', "no whole number"),
        ("transfer.stall = nan", "out of range"),
        ("transfer.stall = inf", "out of range"),
        ('log.level = "loud"', "none of debug"),
        ("storage = 3", "'storage'"),
        ("[storage", "not valid TOML"),
        pytest.param("a = " + "[" * 10_000, "not valid TOML", id="deep"),
    ],
)
def test_a_wrong_value_is_refused_naming_file_and_key(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load(tmp_path, toml)
    assert words in caught.value.message
    assert str(tmp_path / "config.toml") in caught.value.message


def test_a_config_that_is_no_text_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageProblem, match="not valid TOML"):
        load(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(UsageProblem, match="can't be read"):
        load(tmp_path)


@given(st.text(max_size=20))
def test_any_config_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_seconds):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("4096", 4096), ("5 GiB", 5 * 2**30), ("5g", 5 * 2**30), ("1.5MiB", 3 * 2**19), ("2 kB", 2000)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("5 min", 300), ("2h", 7200), ("1.5", 1.5), ("10ms", 0.01), ("90 days", 7776000)]
)
def test_lengths_of_time(text: str, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value)


def test_none_is_allowed_only_where_it_means_something(tmp_path: Path) -> None:
    assert load(tmp_path, 'storage.quota = "none"').size("storage.quota") is None
    with pytest.raises(UsageProblem):
        load(tmp_path, 'storage.min_free = "none"')


def test_the_home_comes_from_flag_then_environment_then_platform(tmp_path: Path) -> None:
    assert choose_home("a/../b", {"P2PLEARN_HOME": "/x"}) == (Path.cwd() / "b", "--home")
    assert choose_home(None, {"P2PLEARN_HOME": str(tmp_path)}) == (tmp_path, "P2PLEARN_HOME")
    home, source = choose_home(None, {})
    assert home.is_absolute()
    assert home.name == "p2plearn"
    assert source == "default"


def test_a_home_is_made_private_and_an_open_one_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    Home(home).prepare()
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o755)
    Home(home).prepare()
    assert home.stat().st_mode & 0o777 == 0o700


def test_shared_folders_files_and_the_home_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    file = tmp_path / "file"
    file.touch()
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    monkeypatch.setenv("HOME", str(own))
    for place in (shared, file, own, file / "below"):
        with pytest.raises(Refused):
            Home(place).prepare()
    assert own.stat().st_mode & 0o777 == 0o755
    if os.getuid() != 0:
        with pytest.raises(P2plearnError):
            Home(Path("/proc/nowhere")).prepare()


def test_what_was_changed_since_the_start_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[storage]\ngive = "1 GiB"\n[transfer]\npeers = 3\n')
    running = Settings.load(tmp_path, {"transfer.peers": 5}, {"P2PLEARN_LOG_LEVEL": "debug"})
    assert not_in_force(tmp_path, running) == []
    file.write_text('[storage]\ngive = "2 GiB"\nmin_free = "1 GiB"\n[transfer]\npeers = 4\n[log]\nlevel = "error"\n')
    assert not_in_force(tmp_path, running) == ["storage.min_free", "storage.give"]
    file.unlink()
    assert not_in_force(tmp_path, running) == ["storage.give"]
    file.write_text("storage = [")
    assert "not valid TOML" in not_in_force(tmp_path, running)[0]
