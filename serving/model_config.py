"""TF Serving's model config file: which versions it loads, and which labels name them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

_LABEL = re.compile(r'version_labels \{ key: "([^"]+)" value: (\d+) \}')


def model_config(name: str, base_path: str, versions: Collection[int], labels: Mapping[str, int]) -> bytes:
    """The text of a `tensorflow.serving.ModelServerConfig` with one model and exactly these versions of it.

    TF Serving refuses the whole file if a label names a version that it has not loaded. At its start it has loaded
    none: `--allow_version_labels_for_unavailable_models=true` lets labels that are new to it wait for their version,
    and leaves the rule in force for labels that move.
    """
    lines = [
        "# Written by `python -m serving pull`, which replaces it.",
        "model_config_list {",
        "  config {",
        f"    name: {json.dumps(name)}",
        f"    base_path: {json.dumps(base_path)}",
        '    model_platform: "tensorflow"',
        f"    model_version_policy {{ specific {{ {' '.join(f'versions: {each}' for each in sorted(versions))} }} }}",
        *(f'    version_labels {{ key: "{label}" value: {number} }}' for label, number in sorted(labels.items())),
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines).encode()


def labels_in(config: bytes) -> dict[str, int]:
    """The labels in a file that `model_config` wrote."""
    return {label: int(number) for label, number in _LABEL.findall(config.decode("utf-8", "replace"))}
