"""Two machines on one: network namespaces with addresses of their own, joined by a cable (a veth pair)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """Where processes run and listen."""

    address: str
    namespace: str | None = None
    """A network namespace; None for the machine's own."""

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` on this host."""
        return [*(("ip", "netns", "exec", self.namespace) if self.namespace else ()), *words]


LOOPBACK = Host("127.0.0.1")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else; they are gone with the `with`.

    Skips the test where namespaces cannot be made.
    """
    if shutil.which("ip") is None:
        pytest.skip("two hosts need the command `ip` (iproute2)")
    names = [f"ct-{os.getpid()}-{end}" for end in "ab"]
    hosts = [Host(f"10.213.77.{number}", name) for number, name in enumerate(names, start=1)]
    cable = [f"ct{os.getpid()}{end}" for end in "ab"]  # at most 15 characters
    try:
        for name in names:
            made = _ip("netns", "add", name)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
        steps = [["link", "add", cable[0], "type", "veth", "peer", "name", cable[1]]]
        for host, end in zip(hosts, cable, strict=True):
            steps += [
                ["link", "set", end, "netns", host.namespace],
                ["-n", host.namespace, "address", "add", f"{host.address}/24", "dev", end],
                ["-n", host.namespace, "link", "set", end, "up"],
                ["-n", host.namespace, "link", "set", "lo", "up"],
            ]
        for step in steps:
            made = _ip(*step)
            if made.returncode:
                pytest.skip(f"no veth pair here: ip {' '.join(step)}: {made.stderr.strip()}")
        yield hosts[0], hosts[1]
    finally:
        for name in names:
            _ip("netns", "delete", name)  # and the cable with it


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
