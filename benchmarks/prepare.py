"""What all peers are given: the same scans in the same parts, as folders of links, and the same initial weights."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from job import catalog, settings
from job.errors import UserError
from job.scan import PARTS


def prepare(overrides: list[str], folder: Path) -> dict[str, int]:
    """Writes `folder/images/{train,val,test}/{0,1}/` and `folder/weights.npz`; returns the scans of each part."""
    wanted = settings.load(None, overrides)
    found = catalog.build(wanted.data, wanted.training.seed)
    for scan in found.scans:
        # Groups are no matter here, but two files of one class may differ only in their suffix's case.
        link = folder / "images" / scan.split / str(scan.label) / Path(scan.path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((Path(wanted.data.root) / scan.path).resolve())
    from job.model import Classifier

    model = Classifier(wanted.model, seed=wanted.training.seed)
    np.savez(folder / "weights.npz", **{str(i): v.numpy() for i, v in enumerate(model.trainable_variables)})
    return {part: len(found.part(part)) for part in PARTS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    try:
        print(json.dumps(prepare(args.set, args.folder)))
    except UserError as error:
        sys.exit(str(error))
