"""Keys: made once by however many at a time, private, and never used when they aren't."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from p2plearn import identity
from p2plearn.errors import P2plearnError, Refused
from p2plearn.identity import SigningKey, load_or_create, verify


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    first = load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(path.parent)) == ["peer.key", "peer.pub"]
    assert load_or_create(path).public == first.public
    assert len(first.public) == 32


def test_modes_hold_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(tmp_path / "keys" / "peer.key")
    finally:
        os.umask(before)
    assert (tmp_path / "keys" / "peer.key").stat().st_mode & 0o777 == 0o600


def test_what_one_signs_only_its_public_key_verifies() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"words")
    assert verify(key.public, b"words", signature)
    assert not verify(key.public, b"other words", signature)
    assert not verify(other.public, b"words", signature)
    for public, given in ((b"", signature), (b"x" * 31, signature), (key.public, b""), (key.public, bytes(64))):
        assert not verify(public, b"words", given)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700, 0o644])
def test_a_key_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "it's here" / "peer.key"
    public = load_or_create(path).public
    path.chmod(mode)
    with pytest.raises(Refused) as caught:
        load_or_create(path)
    assert caught.value.exit_code == 8
    command = caught.value.hint.partition("chmod")[1:]
    subprocess.run(["sh", "-c", "".join(command)], check=True)
    assert load_or_create(path).public == public


def test_a_key_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    load_or_create(path)
    path.parent.chmod(0o755)
    with pytest.raises(Refused, match="open to others") as caught:
        load_or_create(path)
    assert caught.value.hint == f"Close it: chmod 700 {path.parent}"


def test_a_damaged_key_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "author.key"
    load_or_create(path)
    whole = path.read_bytes()
    rsa = generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    locked = SigningKey.generate()._private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for content in (b"", b"hello", whole[:-40], whole.replace(b"P", b"\0"), rsa, locked, b"x" * 10_000):
        path.write_bytes(content)
        with pytest.raises(P2plearnError, match="is damaged"):
            load_or_create(path)
        assert path.read_bytes() == content


def problem_with(path: Path, public: bytes) -> P2plearnError | None:
    try:
        key = load_or_create(path)
    except P2plearnError as problem:
        return problem
    assert key.public == public
    return None


def test_no_rotten_character_is_taken_for_another_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "author.key"
    public = load_or_create(path).public
    whole = path.read_bytes()
    taken = 0
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes((whole[place] ^ 1 << bit,)) + whole[place + 1 :])
            said = problem_with(path, public)
            taken += said is None  # what is outside the key's own bits
            assert said is None or ("damaged" in said.message and "backup" in said.hint)
    assert taken < 8 * len(whole) // 4
    path.write_bytes(whole)
    assert load_or_create(path).public == public


def test_a_rotten_public_half_is_refused_and_the_key_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "it's here" / "peer.key"
    public = load_or_create(path).public
    beside = identity.public_half(path)
    for content in (b"", bytes(65), beside.read_bytes()[:-1], beside.read_bytes().replace(b"\n", b"0")):
        beside.write_bytes(content)
        with pytest.raises(P2plearnError, match=r"belongs to: one of the two is damaged") as caught:
            load_or_create(path)
        command = caught.value.hint.partition("yourself: ")[2].partition(". To begin")[0]
        subprocess.run(["sh", "-c", command], check=True)
        assert load_or_create(path).public == public
        assert beside.read_text("ascii") == f"{public.hex()}\n"


def test_a_key_that_is_gone_is_not_quietly_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "it's here" / "author.key"
    public = load_or_create(path).public
    path.unlink()
    with pytest.raises(P2plearnError, match="is gone") as caught:
        identity.refuse_if_rotten(path)
    with pytest.raises(P2plearnError, match="is gone"):
        load_or_create(path)
    assert os.listdir(path.parent) == ["author.pub"]
    command = caught.value.hint.partition("everybody else: ")[2]
    assert "new author" in caught.value.hint
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    assert load_or_create(path).public != public


def test_a_key_from_before_there_were_public_halves_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys" / "peer.key"
    public = load_or_create(path).public
    beside = identity.public_half(path)
    beside.unlink()
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(identity, "create_private", full)
        assert load_or_create(path).public == public  # a full disk stops nobody
    assert "would go unseen" in caplog.text
    assert load_or_create(path).public == public
    assert beside.read_text("ascii") == f"{public.hex()}\n"
    assert beside.stat().st_mode & 0o777 == 0o600


def test_a_symlink_or_folder_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    load_or_create(path)
    os.rename(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(P2plearnError):
        load_or_create(path)
    path.unlink()
    path.mkdir(mode=0o600)
    with pytest.raises(P2plearnError):
        load_or_create(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(P2plearnError, match="not a regular file"):
        load_or_create(path)


def test_nothing_of_the_private_half_is_ever_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = load_or_create(tmp_path / "keys" / "peer.key")
    secret = key.secret_seed()
    for text in (repr(key), str(key), caplog.text):
        assert secret.hex() not in text
        assert repr(secret) not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)


MAKE = """
import sys
from pathlib import Path
from p2plearn.identity import load_or_create
print(load_or_create(Path(sys.argv[1])).public.hex())
"""


def test_many_processes_at_once_end_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    racers = [subprocess.Popen([sys.executable, "-c", MAKE, path], stdout=subprocess.PIPE) for _ in range(6)]
    answers = {racer.communicate(timeout=60)[0] for racer in racers}
    assert all(racer.returncode == 0 for racer in racers)
    assert len(answers) == 1
    assert sorted(os.listdir(path.parent)) == ["peer.key", "peer.pub"]


KILLED = """
import os, signal, sys
from pathlib import Path
from p2plearn import identity
step, name = int(sys.argv[2]), [0]
def doomed(call):
    def instead(*given, **named):
        name[0] += 1
        if name[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return instead
for call in ("open", "fchmod", "fsync", "link", "unlink", "close"):
    setattr(os, call, doomed(getattr(os, call)))
identity.load_or_create(Path(sys.argv[1]))
"""


def test_killed_at_any_step_a_key_is_whole_or_absent(tmp_path: Path) -> None:
    finished = False
    for step in range(1, 60):
        path = tmp_path / str(step) / "peer.key"
        result = subprocess.run([sys.executable, "-c", KILLED, path, str(step)], check=False)
        if path.exists():
            assert identity._load(path) is not None
        load_or_create(path)
        if result.returncode == 0:
            finished = True
            break
        assert result.returncode == -signal.SIGKILL
    assert finished
    assert step > 12
