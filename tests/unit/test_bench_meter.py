"""The bench's meter: time and memory of a command and of all it started."""

import json
import sys
import time

import pytest

from benchmarks.meter import run_metered

GROW = "import time; held = bytearray(60_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(1.5)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_that_of_all_processes_that_a_command_started(tmp_path):
    twice = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {GROW!r}]); {GROW}; p.wait()"
    seen, _ = run_metered([sys.executable, "-c", twice], tmp_path, ())
    assert 120e6 < seen["peak_memory"] < 200e6


def test_the_clock_starts_with_the_command_and_output_is_passed_on(tmp_path):
    sign = tmp_path / "sign"
    program = f"import pathlib, time; print(7); time.sleep(0.3); pathlib.Path({str(sign)!r}).touch(); time.sleep(0.3)"
    wrap, asked = ["sh", "-c", 'sleep 0.5; exec "$@"', "wrap"], time.time()
    seen, said = run_metered([sys.executable, "-c", program], tmp_path, wrap, watch=sign)
    assert said.strip() == "7"
    assert seen["started"] + 0.3 <= seen["appeared"] <= seen["ended"] - 0.2
    assert seen["started"] >= asked + 0.5  # what the wrapper waited is not measured
    assert json.loads((tmp_path / "meter.json").read_text()) == seen


def test_a_failing_command_ends_the_bench_with_what_it_said(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)out of luck.*exit status 3"):
        run_metered([sys.executable, "-c", "import sys; print('out of luck'); sys.exit(3)"], tmp_path, ())
