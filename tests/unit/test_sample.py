"""Sample scans: seeded drawings that leave the class to the pixels."""

import io
from collections import Counter

from PIL import Image

from job import groups, images, sample
from job.cli import main


def test_the_same_seed_draws_the_same_scans_and_more_of_them_begin_alike():
    few, more = list(sample.draw(3, seed=5)), list(sample.draw(5, seed=5))
    assert set(few) < set(more)
    assert {d.data for d in few}.isdisjoint(d.data for d in sample.draw(3, seed=6))


def test_every_drawing_is_a_scan_of_a_patient():
    drawings = list(sample.draw(30, seed=0))
    headers = {d.path: images.inspect(d.path, d.data) for d in drawings}
    assert len(headers) == 60
    assert {h.format for h in headers.values()} == {"PNG", "JPEG"}
    assert {h.mode for h in headers.values()} == {"L", "RGB", "RGBA"}
    assert set(Counter(groups.from_name(path) for path in headers).values()) == {3}


def test_the_opacities_brighten_the_lungs():
    def mean(drawing):
        return sum(Image.open(io.BytesIO(drawing.data)).convert("L").resize((64, 64)).get_flattened_data()) / 64**2

    by_class = {name: [mean(d) for d in sample.draw(20, 0) if d.path.startswith(f"{name}/")] for name in sample.CLASSES}
    negative, positive = (sum(values) / len(values) for values in by_class.values())
    assert positive > negative


def test_the_command_writes_class_folders_and_refuses_a_folder_in_use(tmp_path, capsys):
    folder = tmp_path / "scans"
    assert main(["sample", str(folder), "--per-class", "2"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["CT_COVID", "CT_NonCOVID"]
    assert sum(1 for _ in folder.rglob("*.*g")) == 4
    assert "not patients" in capsys.readouterr().err
    assert main(["sample", str(folder), "--per-class", "2"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "x"), "--per-class", "0"]) == 2
