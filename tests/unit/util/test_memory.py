"""Memory that was freed and that the C library keeps."""

import platform
from pathlib import Path

import pytest

from lethe._util import memory


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_between_what_stays_is_given_back() -> None:
    blocks = [b"a" * 100_000 for _ in range(1000)]
    kept = blocks[::10]
    del blocks
    before = resident()
    memory.give_back()
    assert before - resident() > 40_000_000, "of 90 MB"
    assert len(kept) == 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_kept_for_the_next_block() -> None:
    memory.keep()
    memory.give_back()
    block = b"a" * 20_000_000
    before = resident()
    del block
    assert before - resident() < 10_000_000
    memory.give_back()
    assert before - resident() > 15_000_000
