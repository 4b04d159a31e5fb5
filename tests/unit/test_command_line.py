"""The command lines: their surface, their exit codes, and how light they are."""

import subprocess
import sys

import pytest
import yaml

from job.cli import main


def test_config_prints_the_resolved_settings(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("training: {epochs: 2}")
    assert main(["config", str(file), "--set", "training.seed=7"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["training"] | {"learning_rate": 0.001} == printed["training"]
    assert (printed["training"]["epochs"], printed["training"]["seed"]) == (2, 7)


def test_a_wrong_setting_exits_with_2_and_one_line(capsys):
    assert main(["train", "--set", "trainning.epochs=3"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "training.epochs" in said.err


def test_a_missing_data_folder_exits_with_1_and_one_line(tmp_path, capsys):
    assert main(["train", "--set", f"data.root={tmp_path}/nowhere", "--set", f"runs={tmp_path}/runs"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nowhere: no such folder" in said


@pytest.mark.parametrize("name", ["../x", "a b", "/abs", ".hidden"])
def test_a_run_name_that_could_leave_its_folder_is_refused(tmp_path, capsys, name):
    assert main(["train", f"--run={name}", "--set", f"runs={tmp_path}"]) == 2
    assert f"--run {name}" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["job", "serving"])
def test_help_needs_neither_tensorflow_nor_ray(package):
    code = (
        f"import sys; from {package}.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'tensorflow', 'ray', 'keras', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_an_unknown_command_is_wrong_usage():
    with pytest.raises(SystemExit) as end:
        main(["trian"])
    assert end.value.code == 2
