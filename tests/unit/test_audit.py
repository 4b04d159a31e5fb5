"""The audit finds what was planted, calls nothing a duplicate that is none, and says what to do."""

import errno
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from job.audit import findings
from job.audit.align import gray, likeness
from job.audit.audit import Audit, audit
from job.audit.duplicates import Pair, find_duplicates
from job.audit.text import as_text
from job.cli import main
from job.errors import UserError
from job.groups import from_name
from job.sample import draw
from job.scan import Scan
from tests.unit.scans import made, population

Change = Callable[[Image.Image], Image.Image]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def drawn() -> list[bytes]:
    """Forty drawn scans, each of another patient."""
    patients: dict[str, bytes] = {}
    for drawing in draw(60, 0):
        patients.setdefault(from_name(drawing.path), drawing.data)
    return list(patients.values())[:40]


def crop(share: float) -> Change:
    def cut(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop((int(w * share), int(h * share / 2), int(w * (1 - share / 2)), int(h * (1 - share))))

    return cut


CHANGES: dict[str, tuple[Change, str, dict[str, Any]]] = {
    "half the size": (lambda i: i.resize((i.width // 2, i.height // 2)), "PNG", {}),
    "another aspect": (lambda i: i.resize((i.width, i.height * 3 // 4)), "PNG", {}),
    "larger": (lambda i: i.resize((i.width * 2, i.height * 2)), "PNG", {}),
    "recompressed": (lambda i: i.convert("RGB"), "JPEG", {"quality": 40}),
    "mirrored": (lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG", {}),
    "cropped": (crop(0.03), "PNG", {}),
    "all of it": (
        lambda i: crop(0.02)(i).convert("RGB").resize((300, 260)).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "JPEG",
        {"quality": 60},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_only_it(drawn: list[bytes], change: str) -> None:
    alter, kind, options = CHANGES[change]
    files = {f"{i}.png": data for i, data in enumerate(drawn)}
    files["copy"] = saved(alter(Image.open(io.BytesIO(drawn[7]))), kind, **options)
    scans = [made(i, path=path) for i, path in enumerate(files)]
    found = find_duplicates(scans, files.__getitem__)
    assert [(pair.one.path, pair.other.path) for pair in found] == [("7.png", "copy")]
    assert not found[0].exact
    assert found[0].mirrored == (change in ("mirrored", "all of it"))


def test_equal_files_are_exact_duplicates_whatever_their_names(drawn: list[bytes]) -> None:
    files = {"b.png": drawn[0], "a.png": drawn[0], "c.png": drawn[3], "d.png": drawn[0]}
    scans = [made(0, path=path, sha256=str(data == drawn[0])) for path, data in files.items()]
    found = find_duplicates(scans, files.__getitem__)
    assert [(pair.one.path, pair.other.path, pair.exact) for pair in found] == [
        ("a.png", "b.png", True),
        ("a.png", "d.png", True),
    ]


def test_pictures_of_one_shade_are_no_duplicates() -> None:
    files = {f"{shade}.png": saved(Image.new("L", (64, 64), shade)) for shade in (0, 0x7F, 0xFF)}
    scans = [made(i, path=path) for i, path in enumerate(files)]
    assert find_duplicates(scans, files.__getitem__) == []


def test_likeness_does_not_depend_on_brightness_and_contrast(drawn: list[bytes]) -> None:
    one = gray(drawn[0])
    assert likeness(one, np.float32(0.7) * one + 20).same
    assert not likeness(one, gray(drawn[20])).same


def test_scans_of_different_patients_are_no_duplicates(drawn: list[bytes]) -> None:
    scans = [made(i, path=f"{i}") for i in range(len(drawn))]
    assert find_duplicates(scans, lambda path: drawn[int(path)]) == []


def pair(one: Scan, other: Scan, **known: Any) -> Pair:
    return Pair(one, other, **{"exact": False, "mirrored": False, "detail": 0.9, **known})


def test_duplicates_are_told_by_how_much_they_harm() -> None:
    covid, other = made(1), made(2, label=0, path="CT_NonCOVID/2.png")
    train, test = made(3), made(4, split="test")
    found = findings.duplicates([pair(covid, other), pair(train, test), pair(made(5), made(6), exact=True)])
    assert [(finding.kind, finding.severity) for finding in found] == [
        ("contradicting-duplicates", "error"),
        ("duplicates-across-parts", "error"),
        ("duplicates", "note"),
    ]
    assert "data.on_contradiction=skip" in found[0].do
    assert found[2].what.startswith("1 exact duplicate ")


def test_groups_that_span_parts_are_found() -> None:
    scans = [made(1, group="p"), made(2, group="p", split="test"), made(3), made(4, split="val")]
    (finding,) = findings.spanning(scans, "images")
    assert (finding.kind, finding.severity) == ("groups-across-parts", "error")
    assert finding.scans == (("CT_COVID/1.png", "CT_COVID/2.png"),)
    assert "data.split=grouped" in finding.do


def test_properties_of_one_class_and_lying_suffixes_are_found() -> None:
    scans = [
        *(made(i, mode="RGBA", format="JPEG") for i in range(20)),
        *(made(i, mode="L") for i in range(20, 30)),
        *(made(i, mode="L", label=0, path=f"CT_NonCOVID/{i}.jpg") for i in range(30, 60)),
    ]
    telling = {finding.kind: finding.what for finding in findings.telling_properties(scans)}
    assert telling["telling-mode"].startswith("mode RGBA gives the class away: 20 scans, all of CT_COVID (67% of it)")
    assert telling["telling-format"].startswith("format JPEG")
    (lying,) = findings.lying_suffixes(scans)
    assert lying.what.startswith("50 files whose suffix lies")
    assert "CT_COVID: .png is JPEG (20)" in lying.what
    assert "CT_NonCOVID: .jpg is PNG (30)" in lying.what


def test_a_clean_data_set_has_no_serious_finding(drawn: list[bytes]) -> None:
    scans = population(40, leak=False)
    result = audit(scans, lambda path: drawn[int(Path(path).stem)], root="data", split="grouped")
    assert [finding for finding in result.findings if finding.severity == "error"] == []
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["root"] == "data"


@pytest.fixture(scope="module")
def real(covid_ct: Path, real_scans: list[Scan]) -> Audit:
    return audit(real_scans, lambda path: (covid_ct / path).read_bytes(), root="covid-ct", split="published")


def test_on_the_real_scans_it_finds_the_two_contradicting_pairs_and_no_other(real: Audit) -> None:
    found = {finding.kind: finding for finding in real.findings}
    assert set(found["contradicting-duplicates"].scans) == {
        ("CT_COVID/kjr-21-e24-p5-29.png", "CT_NonCOVID/71%0.jpg"),
        ("CT_COVID/kjr-21-e24-p5-31.png", "CT_NonCOVID/71%1.jpg"),
    }
    assert "duplicates-across-parts" not in found
    assert not any("exact" in finding.what for finding in real.findings)


def test_on_the_real_scans_it_finds_the_leaks_and_the_spanning_papers(real: Audit) -> None:
    found = {finding.kind: finding for finding in real.findings}
    assert found["lying-suffixes"].what == "34 files whose suffix lies; CT_COVID: .png is JPEG (34)"
    assert found["telling-mode"].what.startswith("mode RGBA gives the class away: 174 scans, all of CT_COVID")
    assert found["telling-suffix"].what.startswith("suffix .jpg gives the class away: 202 scans, all of CT_NonCOVID")
    assert len(found["papers-across-parts"].scans) == 3
    assert "groups-across-parts" not in found
    assert real.findings[0].severity == "error"
    assert found["shortcut"].severity == "error"
    text = as_text(real)
    assert "2 near duplicates in both classes" in text
    assert max(len(line) for line in text.splitlines() if line.startswith(("ERROR", "  ->"))) <= 100


def test_the_command_prints_text_or_json_and_reads_lists_and_patients_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, list[str]] = {"CT_COVID": [], "CT_NonCOVID": []}
    for drawing in draw(6, 0):
        path = tmp_path / drawing.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(drawing.data)
        names[path.parent.name].append(path.name)
    (tmp_path / "CT_COVID" / "broken.png").write_bytes(b"no image")
    (tmp_path / "split").mkdir()
    lines = ["image name,patient id"]
    for name, files in names.items():
        files.sort()
        for part, chosen in (("train", files[:3]), ("val", files[3:4]), ("test", files[4:])):
            (tmp_path / "split" / f"{part}{name}.txt").write_text("\n".join(chosen))
        lines += [f"{file},{name} patient {index // 2}" for index, file in enumerate(files)]
    (tmp_path / "split" / "trainCT_COVID.txt").open("a").write("\nbroken.png")
    lines.append("broken.png,nobody")
    (tmp_path / "My-MetaInfo.csv").write_text("\n".join(lines))

    assert main(["audit", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["split"] == "published"
    kinds = {finding["kind"]: finding for finding in printed["findings"]}
    assert "broken.png" in kinds["bad-images"]["what"]
    assert len(kinds["groups-across-parts"]["scans"]) == 2  # files 2 and 3 of each class are one patient's
    assert printed["counts"]["CT_COVID"]["scans"] == 6

    assert main(["audit", str(tmp_path), "--set", "data.split=images"]) == 0
    captured = capsys.readouterr()
    assert "split images" in captured.out
    assert "My-MetaInfo.csv" in captured.err

    assert main(["audit", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_full_disk_is_said_in_one_line(drawn: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match="no room for 8 KB; make some or set TMPDIR"):
        find_duplicates([made(i, path=f"{i}") for i in range(2)], lambda path: drawn[int(path)])
