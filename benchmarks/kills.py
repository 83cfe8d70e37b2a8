"""Is a pretraining that is killed at any moment, and gone on with, the one that was never killed? Bit by bit.

    python benchmarks/kills.py FOLDER [--kills 200] [--methods dino objects selftrain simclr ...] [--seed 0]
    python benchmarks/kills.py FOLDER --table

Small runs, 64 pixels and a handful of steps, each a process of its own that is ended by SIGKILL with its loader
processes, after which the same command with ``resume=true`` goes on; it may be killed again. Every other kill comes in
a phase that is aimed at, the others at any moment of a run. In which phase a process died is told by a byte of shared
memory that it sets on its way. In the end every tensor of ``headstart.pt``, every line of ``metrics.jsonl`` (times left
out), the pseudo-labels and what a teacher labelled are compared with those of an uninterrupted run.

FOLDER keeps the outcome of each trial in ``kills.jsonl``: Ctrl-C or a kill stops it, and the same command goes on. Runs
with a fault stay there. Exit status 1 where a run was refused, lost something, or ended otherwise.

Processes are forked from one that has imported all: loading torch would take most of the time.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from headstart.cli.command import main as headstart
from headstart.detectors.tensors import same_bits
from headstart.training import budget

STEPS, AGAIN = 6, 0.25
SHORT = 0.05
"""Seconds: a call that takes less is not met from outside; the process then kills itself as the call begins or ends."""
CHANGES = ("images_per_second", "data_wait", "seconds", "time_views", "time_step", "time_other")
"""Measures of time, which no two runs share."""
COMMON = {
    "steps": STEPS, "batch": 4, "imgsz": 64, "save_every": 2, "log_every": 1, "probe_every": 3, "workers": 1,
    "device": "cpu", "precision": "32", "cache": "disk", "model": "yolo11n.yaml", "seed": 0, "lr": 0.001,
}  # fmt: skip
CROPS = {"locals": 2, "local_imgsz": 32, "hidden_dim": 32}
VARIANTS: dict[str, dict[str, Any]] = {
    "dino": {"method": "dino", **CROPS, "output_dim": 64},
    "simclr": {"method": "simclr", "hidden_dim": 32},
    "objects": {"method": "objects", "init": "start.pt", "clusters": 4, "proposal_imgsz": 96},
    "selftrain": {
        "method": "selftrain",
        "init": "start.pt",
        "labels": "scenes/scenes.yaml",
        "held_out": 0.2,
        "teacher": None,
    },
    "byol": {"method": "byol", "hidden_dim": 32, "init": "start.pt", "anchor": 0.5},
    "vicreg": {"method": "vicreg"},
    "densecl": {"method": "densecl"},
    "lejepa": {"method": "lejepa"},
    "pyramid": {"method": "pyramid", "init": "start.pt"},
    "distill": {"method": "distill", "teacher": "test_resnet", "teacher_weights": "teacher.pt"},
    "named": {
        "method": "selftrain",
        "init": "start.pt",
        "labels": "scenes/scenes.yaml",
        "held_out": 0.2,
        "teacher": "test_resnet",
        "teacher_weights": "teacher.pt",
    },
    # The number of steps is then measured: for a comparison of bits it is set to that of the others.
    "budget": {"method": "objects", "init": "start.pt", "clusters": 4, "proposal_imgsz": 96, "budget": "1h"},
    # A finished run of another seed is in the folder, and is replaced.
    "overwrite": {"method": "simclr", "hidden_dim": 32, "overwrite": "true"},
}
"""What is tried: options of ``headstart pretrain``; files are those of the folder."""
PHASES = {
    "index": ("headstart.jobs.prepare:find_images",),
    "loading": ("headstart.jobs.prepare:load_detector", "headstart.jobs.prepare:fit_of"),
    "folder": ("headstart.jobs.prepare:Job.open_folder", "headstart.jobs.pretrain:_Pretraining._write_down"),
    "search": ("headstart.jobs.search:_find",),
    "part of the search": ("headstart.pseudolabels.parts:Parts.finish",),
    "clustering": ("headstart.pseudolabels.search:clustered",),
    "store": ("headstart.jobs.pretrain:open_cache",),
    "budget": ("headstart.training.budget:measure",),
    "loader": ("headstart.images.workers:_started",),
    "first step": (),
    "step": ("headstart.training.step:Step.__call__",),
    "save": ("headstart.training.checkpoint:save",),
    "probe": ("headstart.probes.probe:Probe.__call__",),
    "labelling": ("headstart.methods.selftrain:Selftrain._label",),
    "hand-back": ("headstart.jobs.pretrain:_Pretraining._hand_back",),
    "labels at the end": (
        "headstart.jobs.pretrain:label_images",
        "headstart.jobs.pretrain:write_labels",
    ),
    "report": ("headstart.jobs.pretrain:_Pretraining._draw",),
}
"""What a run does, and the functions that do it; the innermost counts."""
NAMES = ("between", *PHASES)


class Aim(NamedTuple):
    """A moment in a phase: in a call of it, from 0, or at its begin or end where it is short."""

    phase: str
    call: int
    ended: bool


class Watch:
    """What a run does now, in memory that its starter sees: a byte for the phase, one for how often it was entered."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 2 * len(NAMES))
        self.aim: Aim | None = None
        """Where the next process kills itself and its group."""

    @property
    def phase(self) -> str:
        """The phase that it is in, or died in."""
        return NAMES[self.memory[0]]

    def entered(self, phase: str) -> int:
        """How often it has entered a phase, up to 255."""
        return self.memory[len(NAMES) + NAMES.index(phase)]

    def clear(self) -> None:
        """Before a new run."""
        self.memory[:] = bytes(2 * len(NAMES))

    def wrap(self) -> dict[str, list[float]]:
        """Have every function of a phase tell of itself, in this process; the seconds that each call takes."""
        taken: dict[str, list[float]] = defaultdict(list)
        for phase, places in PHASES.items():
            for place in places:
                module, _, name = place.partition(":")
                owner: Any = importlib.import_module(module)
                *outer, name = name.split(".")
                for one in outer:
                    owner = getattr(owner, one)
                setattr(owner, name, self._told(phase, getattr(owner, name), taken))
        return taken

    def _told(self, phase: str, call: Callable[..., Any], taken: dict[str, list[float]]) -> Callable[..., Any]:
        def told(*given: Any, **more: Any) -> Any:
            now = "first step" if phase == "step" and not self.entered("first step") else phase
            number, before = NAMES.index(now), self.memory[0]
            self.memory[0] = number
            self.memory[len(NAMES) + number] = min(255, self.memory[len(NAMES) + number] + 1)
            call_number = self.memory[len(NAMES) + number] - 1
            began = time.perf_counter()
            try:
                self._die_at(Aim(now, call_number, ended=False))
                done = call(*given, **more)
                self._die_at(Aim(now, call_number, ended=True))
                return done
            finally:
                taken[now].append(time.perf_counter() - began)
                self.memory[0] = before

        return told

    def _die_at(self, here: Aim) -> None:
        if here == self.aim:
            os.killpg(os.getpgid(0), signal.SIGKILL)


class Trials:
    """Runs of one variant, killed and gone on with."""

    def __init__(self, variant: str, folder: Path, phases: Sequence[str] = ()) -> None:
        self.variant, self.folder, self.watch, self.phases = variant, folder, Watch(), phases
        self.whole = folder / f"{variant}-whole"
        self.taken: dict[str, list[float]] = {}

    def words(self, out: Path) -> list[str]:
        """The command."""
        options = {**COMMON, **VARIANTS[self.variant], "out": out, "cache_dir": f"{out}-cache"}
        options["data"] = self.folder / "scenes" / "images" / "unlabelled"
        for name in ("init", "labels", "teacher_weights"):
            options |= {name: self.folder / options[name]} if name in options else {}
        if "budget" in options:
            del options["steps"]
        return ["pretrain", *(f"{key}={value}" for key, value in options.items())]

    def prepare(self) -> None:
        """An uninterrupted run, and how long its phases take."""
        times = self.whole.with_suffix(".json")
        if not times.is_file():
            shutil.rmtree(self.whole, ignore_errors=True)
            words, log = self.words(self.whole), self.whole.with_suffix(".log")
            if self._wait(self._start(words, log, times)) != 0:
                sys.exit(f"the uninterrupted run of {self.variant} failed: see {log}")
        self.taken = json.loads(times.read_text())

    def trial(self, number: int, seed: int) -> dict[str, Any]:
        """One run, killed once or more, and compared with the uninterrupted one."""
        random.seed(f"{seed} {self.variant} {number}")
        out = self.folder / f"{self.variant}-{number:04d}"
        for path in (out, Path(f"{out}-cache")):
            shutil.rmtree(path, ignore_errors=True)
        if self.variant == "overwrite":
            shutil.copytree(self.folder / "simclr-other", out)
        words, log = self.words(out), out.with_suffix(".log")
        log.unlink(missing_ok=True)
        phases: list[Any] = []
        follows, aimed = words, bool(self.phases) or number % 2 == 0
        while True:
            again = not phases or random.random() < AGAIN
            aim = self._aim() if aimed and again else None
            self.watch.aim = aim if aim and self.taken[aim.phase][aim.call] < SHORT else None
            pid = self._start(follows, log)
            if again:
                self._until(pid, aim)
                status = self._kill(pid)
            else:
                status = self._wait(pid)
            if status is not None:
                break
            phases.append(self.watch.phase)
            begun = (out / "settings.yaml").is_file()
            first = [word for word in words if word != "overwrite=true"]
            # Killed before it was a run, it is begun anew; what it was to replace is there as it was.
            follows = [*first, "resume=true" if begun else "overwrite=true"]
            if begun and self.variant == "overwrite" and not (out / ".replaced").exists():
                follows = follows if "seed: 0" in (out / "settings.yaml").read_text() else [*first, "overwrite=true"]
        found = {"variant": self.variant, "number": number, "phases": phases, "status": status}
        found["lost"] = [] if status else lost(self.whole, out)
        found["different"] = [] if status or found["lost"] else different(self.whole, out)
        if good(found):
            log.unlink()
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(f"{out}-cache", ignore_errors=True)
        return found

    def _start(self, words: list[str], log: Path, times: Path | None = None) -> int:
        """A process that does what the command line would do."""
        self.watch.clear()
        if pid := os.fork():
            return pid
        status = 70
        try:
            os.setpgid(0, 0)  # loader processes are killed with it; not a session, which would leave our share of cores
            number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(number, 1)
            os.dup2(number, 2)
            print(f"--- {' '.join(words)}", flush=True)
            if any(word.startswith("budget=") for word in words):
                budget.steps_within = lambda *_, **__: STEPS
            parts: Any = sys.modules.get("headstart.pseudolabels.parts")
            if parts is not None:
                parts.SECONDS = 0.0  # a part a batch
            taken = self.watch.wrap()
            status = headstart(words)
            if times:
                times.write_text(json.dumps(taken))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _aim(self) -> Aim:
        phase = random.choice([one for one in self.phases or NAMES[1:] if self.taken.get(one)])
        return Aim(phase, random.randrange(len(self.taken[phase])), random.random() < 0.5)

    def _until(self, pid: int, aim: Aim | None) -> None:
        """Wait for a moment in a phase, or for any moment of a run; shorter where the run ends before."""
        if aim is None:
            _sleep(pid, random.uniform(0, sum(map(sum, self.taken.values()))))
            return
        while not _ended(pid) and (self.watch.aim or self.watch.entered(aim.phase) <= aim.call):
            time.sleep(0.005)
        _sleep(pid, random.uniform(0, self.taken[aim.phase][aim.call]))

    def _kill(self, pid: int) -> int | None:
        """Kill a process and its group; its exit status where it had ended before."""
        for kill in () if _ended(pid) else (os.killpg, os.kill):  # it may not lead its group yet
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        status = self._wait(pid)
        return None if status == -signal.SIGKILL else status

    def _wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _sleep(pid: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not _ended(pid):
        time.sleep(min(0.005, max(0.0, until - time.monotonic())))


# -- what is compared -------------------------------------------------------------------------------------------------


def lost(whole: Path, out: Path) -> list[str]:
    """Files of the uninterrupted run that are not there, and steps that its metrics lack."""
    missing = [
        path.name for path in whole.iterdir() if not path.name.startswith(".") and not (out / path.name).exists()
    ]
    steps = [[line.get("step") for line in lines(one)] for one in (whole, out)]
    left = [path.name for path in out.rglob(".*.tmp")] + [path.name for path in out.glob("search")]
    return missing + ([] if steps[0] == steps[1] else [f"steps {steps[1]}"]) + [f"left behind: {one}" for one in left]


def different(whole: Path, out: Path) -> list[str]:
    """What is not the same bit by bit: tensors, metrics, pseudo-labels, skipped images, what a teacher labelled."""
    found = [f"headstart.pt: {name}" for name in unlike(*(weights(one / "headstart.pt") for one in (whole, out)))]
    if (whole / "pseudolabels.pt").is_file():
        labels = [torch.load(one / "pseudolabels.pt", weights_only=True) for one in (whole, out)]
        found += [f"pseudolabels.pt: {name}" for name in unlike(*labels) if name != "seconds"]
    nothing: dict[str, Any] = {}
    for one, other in itertools.zip_longest(lines(whole), lines(out), fillvalue=nothing):
        keys = [key for key in {**one, **other} if key not in CHANGES and one.get(key) != other.get(key)]
        found += [f"metrics.jsonl: {key} at step {one.get('step')}" for key in keys]
    for name in ("skipped.csv", "teacher.json", "handback.json"):
        texts = [sorted((path / name).read_text().splitlines()) for path in (whole, out) if (path / name).is_file()]
        found += [name] if len(texts) == 1 or (texts and texts[0] != texts[1]) else []
    return found


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of tensors that differ, or that one of them lacks."""
    return [
        name
        for name in {**one, **other}
        if not (isinstance(one.get(name), torch.Tensor) and same_bits(one[name], other.get(name, torch.empty(0))))
        and not (one.get(name) is None and other.get(name) is None)
    ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, of our own making."""
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["model"].state_dict()
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    """What a run has measured."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def good(found: Mapping[str, Any]) -> bool:
    """Whether a trial ended as the uninterrupted run."""
    return found["status"] == 0 and not found["lost"] and not found["different"]


# -- the command ------------------------------------------------------------------------------------------------------


def table(results: list[dict[str, Any]]) -> str:
    """Kills and what came of them, by what is tried and phase, as Markdown."""
    kills: Counter[tuple[str, str]] = Counter()
    faults: dict[str, Counter[tuple[str, str]]] = {"lost": Counter(), "different": Counter()}
    for one in results:
        for phase in one["phases"]:
            key = one["variant"], phase
            kills[key] += 1
            faults["lost"][key] += bool(one["status"] or one["lost"])
            faults["different"][key] += bool(one["different"])
    rows = ["| method | phase | kills | lost | different |", "|---|---|---:|---:|---:|"]
    order = sorted(kills, key=lambda key: ([*VARIANTS, key[0]].index(key[0]), NAMES.index(key[1])))
    rows += [f"| {v} | {p} | {kills[v, p]} | {faults['lost'][v, p]} | {faults['different'][v, p]} |" for v, p in order]
    sums = [sum(one.values()) for one in (kills, faults["lost"], faults["different"])]
    runs = len([one for one in results if one["phases"]])
    return "\n".join([*rows, f"| **all** | {runs} runs | {sums[0]} | {sums[1]} | {sums[2]} |"])


def known(path: Path) -> list[dict[str, Any]]:
    """What is known so far; a line that a kill has cut short is not."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def draw(folder: Path) -> None:
    """Images, of which one cannot be read, labels of a few, a start, a teacher, and a run that is to be replaced."""
    import timm
    from ultralytics import YOLO

    from headstart.jobs.scenes import draw_dataset

    draw_dataset(folder / "scenes", unlabelled=23, train=12, val=2, imgsz=96)
    (folder / "scenes" / "images" / "unlabelled" / "no.jpg").write_bytes(b"no image")
    torch.manual_seed(3)
    YOLO("yolo11n.yaml", verbose=False).save(folder / "start.pt")
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "teacher.pt")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200, help="in all; those of earlier calls count")
    parser.add_argument("--methods", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--phases", nargs="+", default=[], choices=list(PHASES), help="kill in these alone")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--table", action="store_true", help="print what is known, and end")
    given = parser.parse_args()
    path = given.folder / "kills.jsonl"
    results = known(path)
    if not given.table:
        torch.set_num_threads(1)
        os.environ.setdefault("YOLO_OFFLINE", "true")
        run_all(given, path, results)
    print(table(results))
    return 0 if all(map(good, results)) else 1


def run_all(given: argparse.Namespace, path: Path, results: list[dict[str, Any]]) -> None:
    """Trials of one method after the other, until there were as many kills as are asked for."""
    for phase in PHASES.values():  # all that is imported is imported here, once
        for place in phase:
            importlib.import_module(place.partition(":")[0])
    given.folder.mkdir(parents=True, exist_ok=True)
    trials = {variant: Trials(variant, given.folder.resolve(), given.phases) for variant in given.methods}
    if not (given.folder / "start.pt").is_file():
        shutil.rmtree(given.folder / "scenes", ignore_errors=True)
        in_process(lambda: draw(given.folder))
    if "overwrite" in trials and not (given.folder / "simclr-other" / "headstart.pt").is_file():
        shutil.rmtree(given.folder / "simclr-other", ignore_errors=True)
        other = [*(w for w in trials["overwrite"].words(given.folder / "simclr-other") if w != "overwrite=true")]
        in_process(lambda: headstart([*(w for w in other if not w.startswith("seed=")), "seed=1"]))
    gc.freeze()
    try:
        for one in trials.values():
            one.prepare()
        for number in itertools.count():
            for variant, one in trials.items():
                if sum(len(done["phases"]) for done in results) >= given.kills:
                    return
                if any((done["variant"], done["number"]) == (variant, number) for done in results):
                    continue
                found = one.trial(number, given.seed)
                results.append(found)
                with path.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                said = "as the uninterrupted run" if good(found) else f"FAULT: {found}"
                print(f"{variant} {number}: killed in {', '.join(found['phases']) or 'nothing'}: {said}", flush=True)
    except KeyboardInterrupt:
        print("stopped")


def in_process(call: Callable[[], Any]) -> None:
    """Do something in a process of its own: threads that it starts would not survive a fork."""
    if pid := os.fork():
        if os.waitpid(pid, 0)[1]:
            sys.exit("the images or the run to replace could not be made")
        return
    status = 1
    try:
        status = int(bool(call()))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
