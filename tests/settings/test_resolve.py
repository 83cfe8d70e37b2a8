from __future__ import annotations

import pytest
import yaml

from headstart.errors import UserError
from headstart.settings import resolve


def message(**options: object) -> str:
    with pytest.raises(UserError) as caught:
        resolve.resolve(options)
    return str(caught.value)


def test_defaults_are_the_tutorial() -> None:
    resolved = resolve.resolve({"data": "images"})
    assert (resolved.run.imgsz, resolved.run.local_imgsz, resolved.run.method) == (224, 96, "dino")
    assert (resolved.method.optimizer, resolved.method.lr) == ("adam", 1e-3)
    head = resolved.method.model_dump()
    assert (head["hidden_dim"], head["bottleneck_dim"], head["output_dim"], head["locals"]) == (512, 64, 2048, 6)
    assert (head["ema_start"], head["ema_end"]) == (0.996, 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epoch": 3}, "there is no option 'epoch'\n  -> did you mean 'epochs'?"),
        ({"outputdim": 3}, "did you mean 'output_dim'?"),
        ({"epochs": -1}, "epochs: must be greater than 0, not -1"),
        ({"batch": 1}, "batch: must be at least 2, not 1"),
        ({"batch": "many"}, "batch: must be a whole number, not 'many'"),
        ({"batch": 1.5}, "batch: must be a whole number, not 1.5"),
        ({"resume": "perhaps"}, "resume: must be true or false, not 'perhaps'"),
        ({"precision": "fp8"}, "precision: must be 'auto', '32', 'bf16' or '16', not 'fp8'"),
        ({"method": "dinno"}, "method: there is no method 'dinno'\n  -> did you mean 'dino'?"),
        ({"method": "nowhere.py"}, "there is no method 'nowhere.py'"),
        ({"preset": "tutoral"}, "preset: method 'dino' has no preset 'tutoral'\n  -> did you mean 'tutorial'?"),
        ({"epochs": 1, "steps": 2}, "epochs, steps: give one of the two, not both"),
        ({"resume": True, "overwrite": True}, "resume, overwrite: give one of the two, not both"),
        ({"local_scale": 0.3}, "local_scale: must be a pair such as [0.4, 1.0], not 0.3"),
        ({"cfg": "no/such.yaml"}, "cfg: cannot read 'no/such.yaml'"),
        ({"workers": "few"}, "workers: must be a whole number or must be 'auto', not 'few'"),
    ],
)
def test_a_mistake_is_said_in_words(options: dict[str, object], said: str) -> None:
    assert said in message(data="images", **options)


def test_data_is_needed() -> None:
    assert "data: is needed" in message()


def test_all_problems_are_reported_together() -> None:
    text = message(epoch=3, batch="many", lr=-1, preset="x")
    assert text.startswith("5 problems:")
    assert all(word in text for word in ("data: is needed", "'epochs'", "batch:", "lr:", "preset"))


def test_problems_found_elsewhere_join_them() -> None:
    with pytest.raises(UserError) as caught:
        resolve.resolve({"batch": 0}, lambda given: [UserError(f"method is {given['method']}", where="elsewhere")])
    assert "batch:" in str(caught.value)
    assert "elsewhere: method is dino" in str(caught.value)


def test_cfg_gives_options_and_the_command_overrides_them(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"data": "a", "batch": 8, "output_dim": 32}))
    resolved = resolve.resolve({"cfg": str(path), "batch": 16})
    assert (resolved.run.data, resolved.run.batch, resolved.method.model_dump()["output_dim"]) == ("a", 16, 32)


def test_cfg_with_a_misspelt_key(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("data: a\nbatchs: 8\n")
    assert "did you mean 'batch'?" in message(cfg=str(path))


def test_numbers_are_taken_as_names() -> None:
    resolved = resolve.resolve({"data": "images", "device": 0, "precision": 32, "lr": "1e-4"})
    assert (resolved.run.device, resolved.run.precision, resolved.method.lr) == ("0", "32", 1e-4)


def test_settings_are_frozen() -> None:
    resolved = resolve.resolve({"data": "images"})
    with pytest.raises(Exception, match="frozen"):
        resolved.run.batch = 3


def test_what_is_written_can_be_read_back() -> None:
    resolved = resolve.resolve({"data": ["a", "b"], "epochs": 2.5, "local_scale": [0.1, 0.2]})
    again = resolve.resolve(yaml.safe_load(yaml.safe_dump(resolve.to_dict(resolved))))
    assert again.run == resolved.run
    assert again.method.model_dump() == resolved.method.model_dump()


METHOD = '''"""Mine: a summary."""
import a_module_that_does_not_exist
from pydantic import Field
from headstart.settings.schema import MethodSettings

class Settings(MethodSettings):
    own: int = Field(3, ge=1, description="something")

PRESETS = {"mild": {"own": 1, "batch": 4}}
'''


def test_a_users_method_is_read_without_importing_what_it_imports(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(METHOD)
    info = resolve.read_method(str(path))
    assert (info.name, info.summary) == ("mine", "Mine: a summary")
    resolved = resolve.resolve({"data": "x", "method": str(path), "preset": "mild"})
    assert (resolved.method.model_dump()["own"], resolved.run.batch) == (1, 4)
    overridden = resolve.resolve({"data": "x", "method": str(path), "preset": "mild", "own": 9})
    assert overridden.method.model_dump()["own"] == 9


def test_a_method_without_settings_is_a_user_error(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    assert "has no class Settings" in message(data="x", method=str(path))
