"""Settings: what a user may write, and what is said of anything else."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from job import settings
from job.errors import UsageError


def test_the_defaults_are_the_missions():
    s = settings.load()
    assert (s.training.epochs, s.training.learning_rate, s.training.batch_size) == (15, 0.001, 32)
    assert (s.data.positive, s.data.negative, s.data.per_class) == ("CT_COVID", "CT_NonCOVID", 300)
    assert (s.model.kernel_size, s.model.filters) == (2, (32, 64, 128))


def test_printed_settings_load_as_the_same_settings(tmp_path):
    s = settings.load(None, ["training.epochs=3", "data.groups=[a.csv, b.csv]", "export.quality_gate={auc: 0.7}"])
    file = tmp_path / "c.yaml"
    file.write_text(s.to_yaml())
    assert settings.load(str(file)) == s


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainning.epochs=3", "did you mean training.epochs?"),
        ("training.epoch=3", "did you mean training.epochs?"),
        ("epochs=3", "did you mean training.epochs?"),
        ("batchsize=3", "did you mean training.batch_size?"),
        ("zzz=1", "`python -m job config` prints all settings"),
        ("training=3", "training is a section"),
        ("training.epochs=three", "training.epochs must be a whole number, not 'three'"),
        ("training.epochs=1.5", "training.epochs must be a whole number"),
        ("training.epochs=true", "training.epochs must be a whole number, not true"),
        ("training.epochs=null", "training.epochs must be a whole number, not null"),
        ("training.epochs=0", "training.epochs must be at least 1, not 0"),
        ("training.epochs", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("training.epochs=[", "not valid YAML"),
        ("training.seed=-1", "training.seed must be at least 0"),
        ("training.learning_rate=0", "training.learning_rate must be above 0"),
        ("training.learning_rate=.nan", "training.learning_rate must be a number"),
        ("training.precision=float16", "one of float32, mixed_bfloat16"),
        ("data.split=random", "one of grouped, published, images"),
        ("data.fractions=[1, 2]", "a list of 3 numbers"),
        ("data.fractions=[0.5, 0.2, 0.2]", "add up to 1"),
        ("data.fractions=[1, 0, 0]", "three positive numbers"),
        ("data.positive=CT_NonCOVID", "name two class folders"),
        ("data.positive=../x", "a plain folder name"),
        ("export.name=a/b", "a plain folder name"),
        ("data.augment=3", "a mapping of names to values or null"),
        ("model.filters=[]", "a list of one or more whole numbers"),
        ("model.filters=[8, 8, 8, 8, 8, 8]", "nothing is left of a 224 pixel image after 5 of 6 layers"),
        ("training.ema_momentum=1", "training.ema_momentum must be null or between 0 and 1"),
        ("model.input_range=[1, -1]", "model.input_range must be [low, high] with low < high"),
        ("model.input_range=2", "a list of 2 numbers"),
        ("model.dropout=1", "model.dropout must be at least 0 and below 1"),
        ("cluster.workers=0", "cluster.workers must be at least 1"),
        ("cluster.workers=17", "(2 scans at a time): use at most 16 workers, or training.batch_size 34"),
        ("cluster.min_workers=2", "cluster.min_workers 2 is more than cluster.workers 1"),
        ("cluster.gpu=maybe", "cluster.gpu must be true or false"),
        ("export.quality_gate={auc: high}", "must be a number"),
    ],
)
def test_a_wrong_override_is_said_in_one_line(override, said):
    with pytest.raises(UsageError) as caught:
        settings.load(None, [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {epoch: 3}", "unknown setting training.epoch; did you mean training.epochs?"),
        ("- a\n- b", "holds a list; settings are a mapping"),
        ("just text", "holds text"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("training: 3", "training is a section"),
    ],
)
def test_a_wrong_file_is_said_in_one_line_that_names_it(tmp_path, text, said):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings.load(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml: cannot be read: No such file"):
        settings.load(str(tmp_path / "gone.yaml"))


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("training:\n")
    assert settings.load(str(file)) == settings.load()


def test_yaml_1_1_scientific_notation_is_a_number():
    assert settings.load(None, ["training.learning_rate=1e-4"]).training.learning_rate == 1e-4


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_any_value_is_either_taken_or_refused_with_a_user_error(value):
    text = yaml.safe_dump(value)
    for key in ("training.epochs", "data.root", "model.filters", "data.groups", "training.learning_rate"):
        said = None
        try:
            settings.load(None, [f"{key}={text}"])
        except UsageError as error:
            said = str(error)
        assert said is None or key in said
