"""What this machine's processor can do, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def description(path: Path = _CPUINFO) -> dict[str, str]:
    """The lines of one processor in `/proc/cpuinfo` by their names; empty where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def emulates_bfloat16(path: Path = _CPUINFO) -> bool:
    """Whether the processor is known to have no instructions for bfloat16: TensorFlow then computes each operation in
    float32 and converts what goes in and out."""
    found = description(path)
    features = found.get("flags", found.get("Features", "")).split()  # x86 and Arm
    return bool(features) and not any("bf16" in feature for feature in features)
