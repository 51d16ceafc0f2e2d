from __future__ import annotations

import pytest

from opsgate.hosts import is_loopback

HERE = [
    "localhost", "LocalHost:5000", "127.0.0.1", "127.9.8.7:5000", "::1", "[::1]", "[::1]:5000",
    "::ffff:127.0.0.1", "[::ffff:7f00:1]:443",
]  # fmt: skip
ELSEWHERE = [
    "", "ghcr.io", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1:5000", "0.0.0.0", "[::2]",
    "::", "127.1", "1.2.3", "app.localhost", "localhost.", "127.0.0.1.", "::ffff:10.0.0.1", "1:2:3", "[",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_another_machine_or_nobody_knows(host: str) -> None:
    assert not is_loopback(host)
