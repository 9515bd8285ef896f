"""The ledger: whatever is done to its lines is found, except what it says that it can't find."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from lethe._util import manifest
from lethe._util.errors import UserError
from lethe.config import loader
from lethe.reporting.ledger_lines import verify as command
from lethe.workspace import ledger


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A ledger of every kind of event."""
    home = tmp_path_factory.mktemp("ledger")
    config = loader.load(["--run.workspace", str(home)])
    for n, event in enumerate(ledger.EVENTS):
        ledger.append(config, event, "f" * 64, weights=f"{n}" * 64, images=np.int64(n), share=np.float32(0.5), seeds=[2**60])
    return config, (home / "ledger.jsonl").read_bytes()


def faults(tmp_path, content):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(content)
    return ledger.verify(path)[2]


def test_a_whole_chain(written, tmp_path, capsys):
    config, content = written
    assert faults(tmp_path, content) == []
    assert command(config) == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 6 and ledger.head(config) in told.err
    first, *_ = ledger.read(config)
    assert first["previous"] == ledger.FIRST and first["images"] == 0 and first["share"] == 0.5 and first["seeds"] == [str(2**60)]


@given(st.data())
def test_what_is_done_to_a_line_is_found(written, tmp_path_factory, data):
    _, content = written
    lines = content.splitlines(keepends=True)
    n = data.draw(st.integers(0, len(lines) - 2))
    kind = data.draw(st.sampled_from(["byte", "removed", "moved", "twice", "spaces", "value"]))
    changed = list(lines)
    if kind == "byte":
        at = data.draw(st.integers(0, len(lines[n]) - 2))
        flipped = bytearray(lines[n])
        flipped[at] ^= data.draw(st.integers(1, 255))
        changed[n] = bytes(flipped)
    elif kind == "removed":
        del changed[n]
    elif kind == "moved":
        changed[n], changed[n + 1] = changed[n + 1], changed[n]
    elif kind == "twice":
        changed.insert(n, lines[n])
    elif kind == "spaces":
        changed[n] = lines[n].replace(b",", b", ", 1)
    else:
        changed[n] = ledger.canonical(json.loads(lines[n]) | {"at": "2020-01-01T00:00:00+00:00"}) + b"\n"
    found = faults(tmp_path_factory.mktemp("changed"), b"".join(changed))
    assert found and min(fault.line for fault in found) <= n + 2


def test_the_last_line_cut_short_is_found_and_a_removed_end_is_not_without_the_manifest(written, tmp_path):
    _, content = written
    assert [fault.line for fault in faults(tmp_path, content[:-1])] == [6]
    assert [fault.line for fault in faults(tmp_path, content[:-9])] == [6]
    assert faults(tmp_path, b"".join(content.splitlines(keepends=True)[:-1])) == []  # as the docs say


@pytest.mark.parametrize("kept", [0, 3, 5])
def test_a_removed_end_is_found_by_the_manifest(tmp_path, kept):
    config, path = loader.load(["--run.workspace", str(tmp_path)]), tmp_path / "ledger.jsonl"
    for event in ledger.EVENTS:
        ledger.append(config, event, "f" * 64)
    lines = path.read_bytes().splitlines(keepends=True)
    assert ledger.verify(path)[2] == []
    path.write_bytes(b"".join(lines[:kept]))
    assert ["is missing" in fault.what for fault in ledger.verify(path)[2]] == [True]
    ledger.append(config, "verified", "f" * 64, left=1)  # what is added later does not hide it
    manifest.settle(tmp_path)
    assert ["is missing" in fault.what for fault in ledger.verify(path)[2]] == [True]


def test_lines_are_signed_with_a_key(tmp_path):
    key, path = tmp_path / "key.pem", tmp_path / "ledger.jsonl"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    config = loader.load(["--run.workspace", str(tmp_path), "--card.signing_key", str(key)])
    for event in ledger.EVENTS[:2]:
        ledger.append(config, event, "f" * 64)
    ledger.append_once(config, ledger.EVENTS[1], "f" * 64)
    assert ledger.verify(path)[1:] == (2, [])
    first, last = path.read_bytes().splitlines()
    lying = ledger.canonical(json.loads(last) | {"request": "0" * 64})  # which states the hash of the line before, as it should
    path.write_bytes(first + b"\n" + lying + b"\n")
    assert "has a signature that is not of its content" in [fault.what for fault in ledger.verify(path)[2]]
    with pytest.raises(UserError, match=r"card\.signing_key is .*none\.pem \("):
        ledger.append(loader.load(["--run.workspace", str(tmp_path), "--card.signing_key", "none.pem"]), "verified", "f" * 64)


def test_a_kill_in_the_middle_of_a_line_loses_only_that_line(written, tmp_path):
    _, content = written
    config = loader.load(["--run.workspace", str(tmp_path)])
    (tmp_path / "ledger.jsonl").write_bytes(content[:-20])
    ledger.append(config, "verified", "f" * 64)
    assert ledger.verify(tmp_path / "ledger.jsonl")[1:] == (6, [])


def test_nothing_is_recorded_twice_and_several_may_write(tmp_path):
    config = loader.load(["--run.workspace", str(tmp_path)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: ledger.append(config, "evaluated", "a", n_th=n), range(20)))
    ledger.append_once(config, "evaluated", "a", n_th=3)
    assert ledger.verify(tmp_path / "ledger.jsonl")[1:] == (20, [])


def test_the_command_names_every_fault(written, tmp_path, capsys):
    _, content = written
    config = loader.load(["--run.workspace", str(tmp_path)])
    with pytest.raises(UserError, match=r"ledger\.jsonl does not exist"):
        command(config)
    (tmp_path / "ledger.jsonl").write_bytes(content.replace(b"1" * 64, b"9" * 64))
    assert command(config) == 1
    assert "line 3 does not follow the line before it" in capsys.readouterr().out
