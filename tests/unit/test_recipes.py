"""The recipes that come with the job."""

from pathlib import Path

import pytest

import job
from job import settings
from job.settings import Settings

RECIPES = [path for path in sorted((Path(job.__file__).parent / "recipes").glob("*.yaml")) if path.stem != "demo"]


def test_the_plain_recipe_is_the_defaults():
    assert settings.load(str(Path(job.__file__).parent / "recipes" / "plain.yaml"), []) == Settings()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_train_and_nothing_about_the_data_or_the_place(recipe):
    # So that recipes can be compared on any data set, split and cluster.
    config, plain = settings.load(str(recipe), []).to_dict(), Settings().to_dict()
    assert config["training"]["epochs"] == 15
    changed = {f"{part}.{key}" for part, values in config.items() if isinstance(values, dict)
               for key, value in values.items() if value != plain[part][key]}  # fmt: skip
    assert changed <= {"data.augment"} | {key for key in changed if key.startswith(("model.", "training."))}
    assert {key: config[key] for key in ("cluster", "runs", "export")} == {
        key: plain[key] for key in ("cluster", "runs", "export")
    }
