"""The model card of a version, in Markdown, from its run's files (after Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from job.metrics import NAMES, Figure
from job.scan import PARTS, Scan
from job.verdict import CANONICAL_NOTE, DISCLAIMER, TITLES, verdict


def model_card(config: Mapping[str, Any], evaluation: Mapping[str, Any], manifest: Sequence[Scan], *, run: str) -> str:
    """The card as Markdown.

    Args:
        config: the run's resolved settings.
        evaluation: its `evaluation.json`.
        manifest: its scans.
        run: its name.
    """
    positive, negative = _code(config["data"]["positive"]), _code(config["data"]["negative"])
    network, training = config["model"], config["training"]
    layers = ", ".join(map(str, network["filters"]))
    parts = [
        f"# Model card: {config['export']['name']}",
        f"Written by the training job from run {_code(run)}; not edited by hand.",
        f"**{DISCLAIMER}**",
        verdict(evaluation).text,
        "## What it is",
        f"A network of {len(network['filters'])} pairs of Conv2D ({network['kernel_size']}x{network['kernel_size']}; "
        f"{layers} filters) and MaxPool2D ({network['pool_size']}x{network['pool_size']}), then Dense "
        f"({network['dense']}) and one sigmoid. It takes one CT slice as an image of 224 x 224 pixels and gives the "
        f"probability of {positive} against {negative}. Trained from random weights for {training['epochs']} epochs "
        f"with RMSprop at {training['learning_rate']:g}, global batch {training['batch_size']}, seed "
        f"{training['seed']}{_more(config)}.",
        "## Intended use",
        "Teaching and research on training and serving image classifiers, and on how such figures can mislead. Not "
        "for patients, not for triage, not for deciding anything about a person. It has been tried on no scan from "
        "outside its own data set, no scanner's raw output and no population that anybody chose.",
        "## Data",
        f"Scans below {_code(config['data']['root'])}, split {_code(evaluation['split'])}; one side of the split per "
        "patient or source paper only where the split is grouped by them."
        + (" This split is by image: slices of one patient may be on both sides." if _loose(evaluation) else ""),
        _table(
            ["Part", str(config["data"]["positive"]), str(config["data"]["negative"]), "Scans", "Patients or papers"],
            [_part_row(part, manifest) for part in PARTS],
        ),
        "The licence of the scans is not known to the job: whoever passes this version on has to know it. For the "
        "COVID-CT data set (UCSD-AI4H, arXiv:2003.13865), the scans were taken from figures in papers, and all "
        "copyrights belong to the authors and publishers of those papers.",
        "## Figures",
        f"On {evaluation['n']} scans of {evaluation['groups']} patients or papers in the part "
        f"{_code(evaluation['part'])}. The 95% intervals come from a bootstrap over whole patients or papers.",
        _table(
            ["Figure", *_thresholds(evaluation), "Shortcut baseline (no pixel)"],
            [_figure_row(name, evaluation) for name in NAMES],
        ),
        *_chosen(evaluation),
        "The shortcut baseline is a random forest on each file's size, shape, bytes per pixel, format and mode. Where "
        "it does well, the data set gives the class away without a pixel, and a network may use the same traces.",
        *([CANONICAL_NOTE] if config["data"].get("canonical") else []),
        "### By file format",
        _table(
            ["Format", "Scans", "ROC AUC", "Accuracy"],
            [
                [name, str(found["n"]), _shown(found["auc"]), _shown(found["accuracy"])]
                for name, found in evaluation["by_format"].items()
            ],
        ),
        "## Known failure modes",
        "\n".join(f"- {line}" for line in _failures(evaluation, manifest)),
    ]
    return "\n\n".join(parts) + "\n"


def _failures(evaluation: Mapping[str, Any], manifest: Sequence[Scan]) -> list[str]:
    metrics = evaluation["metrics"]
    lines = []
    if metrics["sensitivity"]["value"] is not None and metrics["specificity"]["value"] is not None:
        lines.append(
            f"At threshold {evaluation['threshold']:g} it misses {1 - metrics['sensitivity']['value']:.0%} of the "
            f"positive scans and calls {1 - metrics['specificity']['value']:.0%} of the negative ones positive."
        )
    if metrics["ece"]["value"] is not None:
        lines.append(
            f"Its probabilities are off by {metrics['ece']['value']:.2f} on average (expected calibration error): a "
            "probability of 0.9 does not mean that nine in ten such scans are positive."
        )
    shares = {name: found["accuracy"]["value"] for name, found in evaluation["by_format"].items()}
    if len(shares) > 1:
        worst = min(shares, key=lambda name: shares[name])
        lines.append(f"It is worst on {worst} files (accuracy {shares[worst]:.2f}).")
    for kind in ("mode", "format"):
        seen = {getattr(scan, kind) for scan in manifest}
        one_class = sorted(v for v in seen if len({s.label for s in manifest if getattr(s, kind) == v}) == 1)
        if one_class:
            lines.append(
                f"Every scan with {kind} {', '.join(one_class)} was of one class: what it makes of such a file of the "
                "other class is not known."
            )
    lines.append(
        "It has no answer for an image that is no CT slice of a chest: it gives a probability for any picture that can "
        "be decoded."
    )
    lines.append("Letters, arrows, colours and the crop of a figure are all in the pixels, and it may read those.")
    return lines


def _more(config: Mapping[str, Any]) -> str:
    """What training did beyond the plain recipe."""
    parts = []
    if (span := config["model"]["input_range"]) != [0, 1]:
        parts.append(f"pixels stretched to [{span[0]:g}, {span[1]:g}]")
    if dropout := config["model"]["dropout"]:
        parts.append(f"dropout {dropout:g}")
    if momentum := config["training"]["ema_momentum"]:
        parts.append(f"a moving average of the weights (momentum {momentum:g})")
    if changes := config["data"]["augment"]:
        parts.append(f"augmentation ({', '.join(changes)})")
    return f", with {' and '.join(parts)}" if parts else ""


def _loose(evaluation: Mapping[str, Any]) -> bool:
    return bool(evaluation["split"] == "images")


def _part_row(part: str, manifest: Sequence[Scan]) -> list[str]:
    inside = [scan for scan in manifest if scan.split == part]
    counts = [sum(scan.label == label for scan in inside) for label in (1, 0)]
    return [part, *map(str, counts), str(len(inside)), str(len({scan.group for scan in inside}))]


def _thresholds(evaluation: Mapping[str, Any]) -> list[str]:
    chosen = evaluation.get("chosen_threshold")
    values = [evaluation["threshold"], *([chosen["value"]] if chosen else [])]
    return [f"At threshold {value:.3g}" for value in values]


def _figure_row(name: str, evaluation: Mapping[str, Any]) -> list[str]:
    chosen = evaluation.get("chosen_threshold")
    cells = [_shown(evaluation["metrics"][name]), *([_shown(chosen["metrics"][name])] if chosen else [])]
    shortcut = evaluation["shortcut"].get(name) if name != "by_property" else None
    return [TITLES[name], *cells, _shown(shortcut) if shortcut else ""]


def _chosen(evaluation: Mapping[str, Any]) -> list[str]:
    chosen = evaluation.get("chosen_threshold")
    if not chosen:
        return []
    return [
        f"The threshold {chosen['value']:.3g} was chosen on validation scans alone, for a sensitivity of "
        f"{chosen['wanted_sensitivity']:g} there."
    ]


def _shown(found: Figure) -> str:
    if found["value"] is None:
        return "n/a"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str) -> str:
    """Text from settings, so that nothing in it is taken for Markdown."""
    return f"`{str(text).replace('`', chr(39))}`"
