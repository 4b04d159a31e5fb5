"""What importing TensorFlow brings along."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys, threading
from job.imports import import_tensorflow

{first}
import_tensorflow()
{then}
held = sorted(name for name in ("tensorflow", "keras", "pandas", "sklearn") if name in sys.modules)
import keras, pandas
from sklearn.ensemble import RandomForestClassifier
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.predict(pandas.DataFrame([[1.0, 2.0]]).to_numpy(), verbose=0)
print(json.dumps(held))
"""


def modules(first: str = "", then: str = "") -> list[str]:
    """What is imported in a new process after TensorFlow is; it does something `first`, and something after that."""
    program = [sys.executable, "-c", PROGRAM.format(first=first, then=then)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pandas_and_scikit_learn_stay_out_and_can_be_imported_later():
    assert modules() == ["keras", "tensorflow"]


def test_another_thread_imports_what_it_wants_meanwhile():
    first = """
def other():
    while "tensorflow" not in sys.modules:
        pass
    import sklearn.base
    assert "keras" not in sys.modules
other = threading.Thread(target=other)
other.start()
"""
    assert modules(first, "other.join()") == ["keras", "pandas", "sklearn", "tensorflow"]
