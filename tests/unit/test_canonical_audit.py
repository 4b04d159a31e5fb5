"""What canonical scans still tell of their files: nothing of mode, format and shape, and honestly what is left."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from job.audit.canonical import TRACES, before_and_after, decoded, told_by_pixels, traces
from job.audit.findings import canonical_shortcut
from job.cli import main
from job.preprocess import decode
from job.sample import draw
from job.scan import Scan
from tests.pictures import encode, good_images
from tests.unit.scans import made

canonical = tf.function(lambda data: decode(data, canonical=True), input_signature=[tf.TensorSpec((), tf.string)])


def test_traces_are_what_was_drawn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 100), dtype=np.uint8)
    pixels = np.repeat(noise[..., None], 3, axis=2)
    pixels[:, :10] = 0
    pixels[:, 95:] = 250
    found = traces(pixels)
    assert tuple(found) == TRACES
    assert (found["bars_left_right"], found["bars_top_bottom"], found["colour"]) == (0.15, 0, 0)
    assert 0.8 < found["png_bytes_per_pixel"] < 1.1  # noise does not compress, and gray has one channel
    pixels[..., 1] //= 2
    assert traces(pixels)["colour"] > 10
    assert traces(pixels)["png_bytes_per_pixel"] > found["png_bytes_per_pixel"]
    assert traces(np.full((20, 20, 3), 9, np.uint8))["bars_top_bottom"] == 1


@pytest.mark.parametrize(("name", "data"), good_images().items())
def test_every_canonical_scan_would_be_the_same_kind_of_file(name: str, data: bytes) -> None:
    told = told_by_pixels(canonical(data).numpy())
    kind = {key: told[key] for key in ("width", "height", "aspect", "format", "mode", "colour")}
    assert kind == {"width": 224, "height": 224, "aspect": 1, "format": "PNG", "mode": "L", "colour": 0}


@pytest.fixture(scope="module")
def leaking() -> tuple[list[Scan], dict[str, bytes]]:
    """Scans whose pictures tell nothing of the class, and whose files all of it: mode, aspect and format."""
    scans, files = [], {}
    for index, drawing in enumerate(draw(60, 3)):
        label = index % 2
        image = Image.open(io.BytesIO(drawing.data)).convert("L")
        low = int(image.height * 0.9) if label else image.height
        image = image.crop((0, (image.height - low) // 2, image.width, (image.height - low) // 2 + low))
        data = encode(image.convert("RGB"), "JPEG", quality=95) if label else encode(image.convert("RGBA"), "PNG")
        path = f"{'CT_COVID' if label else 'CT_NonCOVID'}/{index}"
        files[path] = data
        known = {"width": image.width, "height": image.height, "mode": "RGB" if label else "RGBA"}
        part = "test" if index % 4 > 1 else "train"
        kind = "JPEG" if label else "PNG"
        scans.append(
            made(index, path=path, label=label, group=f"{index}", split=part, size=len(data), format=kind, **known)
        )
    return scans, files


def test_files_that_tell_all_tell_nothing_once_they_are_canonical(leaking: tuple[list[Scan], dict[str, bytes]]) -> None:
    scans, files = leaking
    found = before_and_after(
        scans, lambda s: canonical(files[s.path]).numpy(), lambda s: decoded(files[s.path]), threads=2
    )
    for part in ("test", "cross_validated"):
        before, after = found["files"][part], found["canonical"][part]
        assert before["auc"]["low"] > 0.95
        assert before["by_property"]["mode"]["auc"]["value"] == 1
        for name in ("width", "height", "aspect", "format", "mode", "colour"):
            assert after["by_property"][name]["auc"]["value"] == 0.5, name
    json.dumps(found, allow_nan=False)


def test_what_is_left_in_the_pixels_is_said(leaking: tuple[list[Scan], dict[str, bytes]]) -> None:
    # One class shows much less: no preprocessing makes it compress like the other.
    scans, files = leaking

    def seen(scan: Scan) -> np.ndarray:
        pixels = canonical(files[scan.path]).numpy()
        return pixels // 16 * 16 if scan.label else pixels

    found = before_and_after(scans, seen, None, threads=2)
    assert found["files"] is None
    assert found["canonical"]["cross_validated"] is None
    (finding,) = canonical_shortcut(found)
    assert finding.kind == "canonical-shortcut"
    assert "png bytes per pixel" in finding.what
    same = before_and_after(scans, lambda _: canonical(files[scans[0].path]).numpy(), None, threads=2)
    assert canonical_shortcut(same) == []


def test_the_command_measures_it_where_the_setting_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for drawing in draw(12, 0):
        path = tmp_path / drawing.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(drawing.data)
    assert main(["audit", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["canonical"] is None
    out = tmp_path / "audit.html"
    assert main(["audit", str(tmp_path), "--set", "data.canonical=true", "--html", str(out)]) == 0
    said = capsys.readouterr().out
    (mode,) = (line for line in said.splitlines() if line.startswith("  mode") and line.count("(") > 2)
    assert mode.count("0.50 (0.50-0.50)") == 2  # canonical, on the test part and cross-validated
    assert "bars left right" in said
    assert "<caption>ROC AUC on the test part, with 95% intervals</caption>" in out.read_text()
