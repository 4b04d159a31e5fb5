"""The recipes that come with the job."""

from dataclasses import replace
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
    config = settings.load(str(recipe), [])
    assert config.training.epochs == 15
    plain = replace(Settings(), model=config.model, training=config.training)
    assert config == replace(plain, data=replace(plain.data, augment=config.data.augment))
