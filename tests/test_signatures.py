"""What editors and type checkers see of ``headstart.pretrain`` and its like."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.errors import UserError
from headstart.jobs import compare_options
from headstart.jobs.signature import plain
from headstart.methods.find import find as read_method
from headstart.methods.find import names
from headstart.settings.schema import CompareSettings, PretrainSettings

ROOT = Path(__file__).parent.parent
SOURCE = Path(headstart.__file__).parent


def test_the_stub_is_in_step_with_the_settings() -> None:
    spec = importlib.util.spec_from_file_location("signatures", ROOT / "tools" / "signatures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PATH.read_text(encoding="utf-8") == module.stub(), "run: python tools/signatures.py"


def test_dir_lists_them() -> None:
    assert set(headstart.__all__) <= set(dir(headstart))


def test_signatures_at_run_time() -> None:
    shown = inspect.signature(headstart.pretrain).parameters
    own = {name for method in names() for name in read_method(method).settings.model_fields}
    assert set(shown) == {*PretrainSettings.model_fields, *own, "cfg", "options"}
    assert (shown["save_every"].default, shown["save_every"].annotation) == (500, "int")
    assert repr(shown["batch"].default) == "..."  # the method's preset decides
    assert {one.kind for one in shown.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(inspect.signature(headstart.compare).parameters) == {*CompareSettings.model_fields, "cfg"}
    assert inspect.signature(headstart.compare).return_annotation == "Comparison"


def test_help_is_useful() -> None:
    text = pydoc.render_doc(headstart.pretrain, renderer=pydoc.plaintext)
    assert "save_every: int = 500" in text
    assert "batch: images a step" in text
    assert "teacher_temp: dino: temperature of the teacher's scores" in text


def test_the_signature_of_probe_is_that_of_its_settings() -> None:
    from headstart.jobs.signature import options

    shown = inspect.signature(headstart.probe).parameters
    assert list(shown) == [one.name for one in options("probe")]
    for one in options("probe"):
        default = shown[one.name].default
        assert one.default == (None if default is inspect.Parameter.empty else repr(default))


def test_what_python_gives_is_made_plain() -> None:
    module = object()
    given = {"data": [Path("a"), "b"], "out": Path("c"), "model": module, "options": {"cells": 3, "net": Path("d")}}
    assert plain(given) == {"data": ["a", "b"], "out": "c", "model": module, "cells": 3, "net": "d"}
    with pytest.raises(UserError, match="options: names batch, which is given beside it"):
        plain({"batch": 1, "options": {"batch": 2}})
    with pytest.raises(UserError, match="options: must be a dictionary"):
        plain({"options": ["cells"]})


def test_numbers_of_numpy_and_torch_are_made_pythons_own() -> None:
    module = torch.nn.Linear(1, 1)
    given = {
        "lr": np.float64(0.5), "seed": np.int64(3), "report": np.True_, "momentum": np.float32(0.25),
        "batch": np.array(8), "steps": torch.tensor(7), "model": module, "method": np.str_("dino"),
        "view_scale": (np.float64(0.5), 1.0), "seeds": np.arange(3), "labels": ["10%", np.int32(40)],
        "recipes": {"a": {"lr": np.float32(0.5), "s": [torch.tensor(0.25), Path("c")], np.str_("b"): (np.int8(1),)}},
        "options": {"cells": np.uint8(2)},
    }  # fmt: skip
    expected = {
        "lr": 0.5, "seed": 3, "report": True, "momentum": 0.25, "batch": 8, "steps": 7, "model": module,
        "method": "dino", "view_scale": (0.5, 1.0), "seeds": [0, 1, 2], "labels": ["10%", 40],
        "recipes": {"a": {"lr": 0.5, "s": [0.25, "c"], "b": (1,)}}, "cells": 2,
    }  # fmt: skip
    found = plain(given)
    assert found == expected

    def own(value: Any) -> None:
        if isinstance(value, dict):
            own([*value, *value.values()])
        elif isinstance(value, (list, tuple)):
            for one in value:
                own(one)
        else:
            assert value is module or type(value) in (bool, int, float, str), type(value)

    own(found)


def test_options_of_ones_own_method_reach_the_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no option 'turn'"):
        headstart.pretrain(data=tmp_path, options={"turn": 3})


def test_paths_reach_the_settings(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("path: .\n")
    with pytest.raises(UserError, match="must be greater than 0"):
        headstart.compare(data=tmp_path / "my.yaml", out=tmp_path, lr=[-1.0])
    assert compare_options.resolve({"data": str(tmp_path / "my.yaml"), "seeds": 2}).seeds == [0, 1]


def run_mypy(folder: Path, code: str) -> str:
    (folder / "user.py").write_text(f"import headstart\nfrom pathlib import Path\n{code}\n")
    # The stub alone is what a user's call is checked against; following all that it imports takes minutes.
    words = ["-m", "mypy", "--strict", "--follow-imports=skip", "--config-file=", f"--cache-dir={folder}/cache"]
    done = subprocess.run(
        [sys.executable, *words, str(SOURCE / "__init__.pyi"), "user.py"],
        capture_output=True, text=True, cwd=folder, env={**os.environ, "MYPYPATH": ""}, check=False,
    )  # fmt: skip
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("user.py"))


def test_mypy_takes_right_calls(tmp_path: Path) -> None:
    code = """
headstart.pretrain(data="x", epochs=3, batch=8, output_dim=64, global_scale=(0.4, 1.0), local_scale=[0.1, 0.2])
headstart.pretrain(data=[Path("x"), "y"], model=object(), device=0, precision=16, clip=None, cache="off", teacher="z")
headstart.pretrain(resume=True, out=Path("runs/a"))
headstart.pretrain(data="x", method="my.py", options={"turns": 3})
headstart.compare(data=Path("x.yaml"), starts=["scratch", "ssl=runs/a"], labels=["10%", 200], seeds=3)
headstart.compare(data="x.yaml", lr=0.01, longer=True, device=0)
headstart.compare(data="x.yaml", starts="scratch,coco", seeds=[1, 2], extra={"mosaic": 0.0})
headstart.probe("runs/a", "x", images=8)
"""
    assert run_mypy(tmp_path, code) == ""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('pretrain(data="x", epoch=3)', 'Unexpected keyword argument "epoch" for "pretrain"; did you mean "epochs"'),
        ('pretrain(data="x", cache="rom")', 'Argument "cache" to "pretrain" has incompatible type "Literal[\'rom\']"'),
        ('pretrain("x")', "Too many positional arguments"),
        ('compare(data="x", plans=True)', 'Unexpected keyword argument "plans" for "compare"'),
        ('probe("x")', 'Missing positional argument "data"'),
    ],
)
def test_mypy_rejects_wrong_calls(call: str, said: str, tmp_path: Path) -> None:
    assert said.split(";")[0] in run_mypy(tmp_path, f"headstart.{call}")


def test_everything_else_is_typed(tmp_path: Path) -> None:
    """`with_signature` keeps what a function returns."""

    def job(**options: Any) -> int:
        """Do it."""
        return len(options)

    from headstart.jobs.signature import with_signature

    made = with_signature("compare")(job)
    assert (made(data="x", out=tmp_path), made.__name__) == (2, "job")
    assert made.__doc__ is not None
    assert made.__doc__.startswith("Do it.\n\nOptions:\n    data: ")
