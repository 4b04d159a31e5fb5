"""Which patient or source paper a scan comes from: from CSV files, or read off its file name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from job.errors import UserError
from job.storage import open_file

# COVID-CT names a figure `<paper>-p<page>-<number>%<panel>.png`, or `<case>%<panel>.jpg`.
_PAGE = re.compile(r"-p\d+(?=[-_%.]|$)")
_PANEL = re.compile(r"(?<=.)%\d+$")

_IMAGE_COLUMNS = ("file name", "filename", "file", "image name", "image", "path")
_GROUP_COLUMNS = ("patient id", "patient", "patientid", "group")


def from_name(path: str) -> str:
    """The group that the file name of a scan tells: its class folder, and the part before `-p<page>` or `%<panel>`.

    >>> from_name("CT_COVID/2020.02.10.20021584-p6-52%10.png")
    'CT_COVID/2020.02.10.20021584'
    >>> from_name("CT_NonCOVID/71%0.jpg")
    'CT_NonCOVID/71%'

    The `%` stays: in COVID-CT `14%0.jpg` and `14.png` are of different cases.
    """
    name = PurePosixPath(path)
    page = _PAGE.search(name.stem, pos=1)
    source = name.stem[: page.start()] if page else _PANEL.sub("%", name.stem)
    return f"{name.parent.as_posix()}/{source or name.stem}"


def from_files(urls: Sequence[str]) -> dict[str, str]:
    """File name to patient, from CSV files (local or s3://) with a header such as `File name,Patient ID`.

    Raises:
        UserError: a file cannot be read, lacks the columns, or gives one image two patients.
    """
    patients: dict[str, str] = {}
    for url in urls:
        text = open_file(url).decode("utf-8-sig", errors="replace")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        image_column = _column(reader.fieldnames or (), _IMAGE_COLUMNS)
        group_column = _column(reader.fieldnames or (), _GROUP_COLUMNS)
        if image_column is None or group_column is None:
            raise UserError(
                f"{url}: needs a column with the image ({_IMAGE_COLUMNS[0]!r} or {_IMAGE_COLUMNS[3]!r}) and one with "
                f"the patient ({_GROUP_COLUMNS[0]!r}); it has {', '.join(map(repr, reader.fieldnames or ()))}"
            )
        for row in reader:
            image, patient = (row[image_column] or "").strip(), (row[group_column] or "").strip()
            if image and patient and patients.setdefault(image, patient) != patient:
                raise UserError(
                    f"{url}: line {reader.line_num} gives {image} to {patient}, before to {patients[image]}"
                )
    return patients


def group_of(path: str, patients: Mapping[str, str] | None) -> str:
    """The group of the scan at `path` below the data root. Raises `UserError` if a patient is wanted and not known."""
    if patients is None:
        return from_name(path)
    for key in (path, PurePosixPath(path).name):
        if key in patients:
            return patients[key]
    raise UserError(f"data.groups: no line for {path}; add one, or set data.groups=null to read groups off file names")


def _column(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {name.strip().lower().replace("_", " "): name for name in names if name}
    return next((plain[name] for name in known if name in plain), None)
