"""Fixtures of the unit tests."""

from pathlib import Path

import pytest

from job import catalog
from job.scan import Scan
from job.settings import Data


@pytest.fixture(scope="session")
def real_scans(covid_ct: Path) -> list[Scan]:
    """The real data set's catalog: all 746 scans on the published split, grouped by patient."""
    groups = (str(covid_ct / "COVID-MetaInfo.csv"), str(covid_ct / "NonCOVID-MetaInfo.csv"))
    data = Data(root=str(covid_ct), per_class=None, split="published", groups=groups)
    return list(catalog.build(data, seed=0).scans)
