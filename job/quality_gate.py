"""`export.quality_gate`: what an evaluation must reach before its model may be published.

Keys are a figure's name (`auc: 0.75` is the least value; for brier and ece, where lower is better, the most), the
name with `_lower_bound` (the least lower end of its 95% interval; `_upper_bound` for brier and ece), and
`shortcut_margin`: how much the AUC must lie above the shortcut baseline's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from job.errors import UsageError
from job.metrics import NAMES

LOWER_IS_BETTER = ("brier", "ece")
MARGIN = "shortcut_margin"


def gate_keys() -> list[str]:
    """All keys that a gate may have."""
    bounds = [f"{name}_{'upper' if name in LOWER_IS_BETTER else 'lower'}_bound" for name in NAMES]
    return [*NAMES, *bounds, MARGIN]


def check_gate_keys(gate: Mapping[str, float]) -> None:
    """Raises `UsageError` for a key that no gate has: call it before the training, not after."""
    for key in gate:
        if key not in gate_keys():
            close = difflib.get_close_matches(key, gate_keys(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(gate_keys())}"
            raise UsageError(f"export.quality_gate: unknown key {key}; {hint}")


def check_gate(gate: Mapping[str, float], evaluation: Mapping[str, Any]) -> list[str]:
    """Why the model of this `evaluation.json` may not be published, a line each; an empty list lets it through.

    A figure that is not defined passes no gate. Raises `UsageError` for an unknown key.
    """
    check_gate_keys(gate)
    reasons = []
    for key, wanted in gate.items():
        if key == MARGIN:
            auc, shortcut = evaluation["metrics"]["auc"]["value"], evaluation["shortcut"]["auc"]["value"]
            if auc is None or shortcut is None:
                reasons.append(f"{key}: there is no AUC of the model or of the shortcut baseline to compare")
            elif auc - shortcut < wanted:
                reasons.append(
                    f"{key}: AUC {auc:.3f} is {auc - shortcut:+.3f} from the shortcut baseline's {shortcut:.3f}, "
                    f"wanted at least {wanted:+g}"
                )
            continue
        name = key.removesuffix("_lower_bound").removesuffix("_upper_bound")
        end = "value" if key == name else "high" if name in LOWER_IS_BETTER else "low"
        found = evaluation["metrics"][name][end]
        if found is None:
            reasons.append(f"{key}: not defined on the {evaluation['n']} scans of the part {evaluation['part']}")
        elif name in LOWER_IS_BETTER and found > wanted:
            reasons.append(f"{key}: {found:.3f}, wanted at most {wanted:g}")
        elif name not in LOWER_IS_BETTER and found < wanted:
            reasons.append(f"{key}: {found:.3f}, wanted at least {wanted:g}")
    return reasons
