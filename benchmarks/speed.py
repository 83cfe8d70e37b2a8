"""Images per second end to end: the tutorial's loop, LightlyTrain, stable-pretraining and headstart, in turn.

    python benchmarks/speed.py NAME=FOLDER [NAME=FOLDER ...] [--device cpu] [--batch 32] [--steps 12] [--rounds 3]
        [--lightly-train PYTHON] [--stable-pretraining PYTHON] [--make-environments FOLDER]

All get the same images (the first `--images` of each folder), the same backbone (YOLO11n), the same crops (2 x 224 and
6 x 96) and the same batch. Each turn is a process of its own. Rates are those of the steps after the first
`--warm-up`; waiting is what the training loop spends in the loader's `__next__` (in headstart's own metrics, for it).
Processor time is that of the process and its workers together: it says what a machine that has nothing else to do
would reach where the loop keeps all cores busy, and is disturbed less by what else runs. `ceiling` is headstart's step
on views that are made once. Memory is the peak of the process and its workers together (PSS, each shared page once,
mapped files included).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CONTESTANTS = ("tutorial", "lightly-train", "stable-pretraining", "headstart", "headstart-32", "ceiling")
SUFFIXES = {".jpg", ".jpeg", ".png"}

# Before every program: processor time of a process and its workers, in seconds.
PROCESSOR = """
import json, os, sys, time, torch
A = json.loads(sys.argv[1])
def processor():
    total = time.process_time()
    for task in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else []:
        for child in open(f"/proc/self/task/{task}/children").read().split():
            fields = open(f"/proc/{child}/stat").read().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
def graphics():
    "Most memory that torch set aside on the GPU, in MB."
    return torch.cuda.max_memory_reserved() / 2**20 if A["device"] != "cpu" else 0.0
"""

# Runs in the environment of a contestant, before its own code: counts the batches that its loop takes, and the waiting.
WATCH = """
from torch.utils.data.dataloader import _BaseDataLoaderIter
T, W, C = [], [], []
plain = _BaseDataLoaderIter.__next__
def watched(self):
    began = time.perf_counter()
    if T and len(T) > A["steps"]:
        told()
    batch = plain(self)
    T.append(began); W.append(time.perf_counter() - began); C.append(processor())
    return batch
def told():
    if A["device"] != "cpu":
        torch.cuda.synchronize()
    T.append(time.perf_counter())
    first = A["warm_up"]
    seconds = T[-1] - T[first]
    steps = len(T) - 1 - first
    images = steps * A["batch"]
    cpu = (processor() - C[first]) * 1000 / images
    figures = {"rate": images / seconds, "cpu": cpu, "wait": sum(W[first:]) / seconds, "graphics": graphics()}
    print("\\nRESULT " + json.dumps(figures), flush=True)
    os._exit(0)
_BaseDataLoaderIter.__next__ = watched
"""

TUTORIAL = """
import copy
from lightly.data import LightlyDataset
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import DINOTransform
from lightly.utils.scheduler import cosine_schedule
from torch import nn
from ultralytics import YOLO

class DINO(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.student_backbone, self.teacher_backbone = backbone, copy.deepcopy(backbone)
        self.student_head = DINOProjectionHead(256, 512, 64, 2048, freeze_last_layer=1)
        self.teacher_head = DINOProjectionHead(256, 512, 64, 2048)
        deactivate_requires_grad(self.teacher_backbone); deactivate_requires_grad(self.teacher_head)
    def forward(self, x):
        return self.student_head(self.student_backbone(x).mean((2, 3)))
    def forward_teacher(self, x):
        return self.teacher_head(self.teacher_backbone(x).mean((2, 3)))

device = torch.device(A["device"])
model = DINO(nn.Sequential(*YOLO("yolo11n.yaml", verbose=False).model.model[:11]).requires_grad_(True))
model.to(device).train()
data = LightlyDataset(A["data"], transform=DINOTransform())
loader = torch.utils.data.DataLoader(data, A["batch"], shuffle=True, drop_last=True, num_workers=A["workers"])
criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
for epoch in range(1000):
    momentum = cosine_schedule(epoch, 1000, 0.996, 1)
    for batch in loader:
        update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
        update_momentum(model.student_head, model.teacher_head, m=momentum)
        views = [view.to(device) for view in batch[0]]
        teacher_out = [model.forward_teacher(view) for view in views[:2]]
        loss = criterion(teacher_out, [model(view) for view in views], epoch=epoch)
        loss.backward()
        model.student_head.cancel_last_layer_gradients(current_epoch=epoch)
        optimizer.step()
        optimizer.zero_grad()
"""

LIGHTLY_TRAIN = """
import lightly_train
views = {"random_resize": {"min_scale": 0.4, "max_scale": 1.0}, "local_view": {
    "num_views": 6, "view_size": [96, 96], "random_resize": {"min_scale": 0.05, "max_scale": 0.4}}}
if __name__ == "__main__":
    lightly_train.pretrain(
        out=A["out"], data=A["data"], model="ultralytics/yolo11n.yaml", method="dino", batch_size=A["batch"],
        epochs=1000, num_workers=A["workers"], accelerator="cpu" if A["device"] == "cpu" else "gpu", devices=1,
        transform_args=views, overwrite=True)
"""

# Its DINO module and its transforms in a plain loop, which leaves out what its trainer adds.
STABLE_PRETRAINING = """
from pathlib import Path
import stable_pretraining.data.transforms as transforms
from PIL import Image
from stable_pretraining.methods.dino import DINO
from torch import nn
from ultralytics import YOLO

class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*YOLO("yolo11n.yaml", verbose=False).model.model[:11]).requires_grad_(True)
    def forward(self, x):
        return self.layers(x).mean((2, 3))

def view(size, scale, blur, solarize):
    return transforms.Compose(
        transforms.RGB(), transforms.RandomResizedCrop((size, size), scale=scale, interpolation=3),
        transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        transforms.RandomGrayscale(p=0.2), transforms.PILGaussianBlur(p=blur),
        transforms.RandomSolarize(threshold=128, p=solarize), transforms.ToImage(mean=[0, 0, 0], std=[1, 1, 1]))

class Images(torch.utils.data.Dataset):
    def __init__(self):
        self.paths = sorted(Path(A["data"]).iterdir())
        self.views = [view(224, (0.4, 1.0), 1.0, 0.0), view(224, (0.4, 1.0), 0.1, 0.2)]
        self.views += [view(96, (0.05, 0.4), 0.5, 0.0)] * 6
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, i):
        image = Image.open(self.paths[i]).convert("RGB")
        return [make({"image": image})["image"] for make in self.views]

device = torch.device(A["device"])
model = DINO(Backbone(), 512, 64, 2048).to(device).train()
loader = torch.utils.data.DataLoader(Images(), A["batch"], shuffle=True, drop_last=True, num_workers=A["workers"])
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.001)
for epoch in range(1000):
    for views in loader:
        views = [view.to(device) for view in views]
        model(global_views=views[:2], local_views=views[2:]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.backbone.update_teacher(); model.projector.update_teacher()
"""

HEADSTART = """
import headstart
from headstart.run.folder import RunFolder
C, plain = [], RunFolder.metrics
def metrics(self, values):
    C.append(processor())
    plain(self, values)
RunFolder.metrics = metrics
options = {"device": A["device"], "batch": A["batch"], "steps": A["steps"] + 1, "report": False, "overwrite": True}
options |= {"cache": "disk", "cache_dir": A["cache"], "log_every": 1, **A["more"]}
headstart.pretrain(data=A["data"], out=A["out"], **options)
if options.get("compile") and "compiled: " not in open(A["out"] + "/log.txt").read():
    sys.exit("torch.compile fails here, so nothing was compiled")
lines = [json.loads(line) for line in open(A["out"] + "/metrics.jsonl")]
counted = lines[A["warm_up"]:]
seconds = lines[-1]["seconds"] - lines[A["warm_up"] - 1]["seconds"]
spans = [b["seconds"] - a["seconds"] for a, b in zip(lines[A["warm_up"] - 1:], counted)]
share = lambda name: sum(line[name] * span for line, span in zip(counted, spans)) / seconds
images = len(counted) * A["batch"]
cpu = (C[-1] - C[A["warm_up"] - 1]) * 1000 / images
shares = {name.removeprefix("time_"): share(name) for name in ("time_views", "time_step")}
figures = {"rate": images / seconds, "cpu": cpu, "wait": share("data_wait"), "graphics": graphics(), **shares}
print("\\nRESULT " + json.dumps(figures), flush=True)
"""

CEILING = """
from headstart.detectors.find import load_detector
from headstart.launch.devices import make_fabric
from headstart.machine import choose, parse_device
from headstart.methods.base import Context
from headstart.methods.dino import DINO, Settings
from headstart.methods.schedules import Progress
from headstart.training.step import Step
from headstart.views.spec import View
device = parse_device(A["device"])
chosen = choose(A["more"].get("precision", "auto"), "auto", "auto", torch.device(str(device)))
detector = load_detector("yolo11n.yaml")
method = DINO(Settings(), Context(detector.trunk(), (detector.backbone.width,), batch=A["batch"]))
if chosen.channels_last:
    method.to(memory_format=torch.channels_last)
step = Step(method, method.settings, make_fabric(device, chosen.precision), seed=0)
place = step.fabric.device
views = [View(torch.rand(A["batch"], 3, s, s, device=place), None, None, None) for s in [224] * 2 + [96] * 6]
for number in range(A["steps"] + 1):
    if number == A["warm_up"]:
        if A["device"] != "cpu": torch.cuda.synchronize()
        began, before = time.perf_counter(), processor()
    step(views, Progress(number, 1000, 0.0))
if A["device"] != "cpu": torch.cuda.synchronize()
images = (A["steps"] + 1 - A["warm_up"]) * A["batch"]
cpu = (processor() - before) * 1000 / images
figures = {"rate": images / (time.perf_counter() - began), "cpu": cpu, "wait": 0.0, "graphics": graphics()}
print("\\nRESULT " + json.dumps(figures), flush=True)
"""

PROGRAMS = {
    "tutorial": PROCESSOR + WATCH + TUTORIAL,
    "lightly-train": PROCESSOR + WATCH + LIGHTLY_TRAIN,
    "stable-pretraining": PROCESSOR + WATCH + STABLE_PRETRAINING,
    "headstart": PROCESSOR + HEADSTART,
    "headstart-32": PROCESSOR + HEADSTART,
    "ceiling": PROCESSOR + CEILING,
}
PACKAGES = {
    "lightly-train": ["lightly-train", "ultralytics"],
    "stable-pretraining": ["stable-pretraining", "ultralytics"],
}


class Memory(threading.Thread):
    """Looks at the memory of a process and its children until the process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self) -> None:
        while True:
            total = sum(map(_pss, _family(self.pid)))
            if not total:
                return
            self.peak = max(self.peak, total)
            time.sleep(1.0)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(other for child in children for other in _family(int(child)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def turn(name: str, python: str, arguments: dict[str, Any]) -> dict[str, float] | str:
    """One process of one contestant: its figures, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAMS[name])
        out, errors = Path(folder) / "out.txt", Path(folder) / "errors.txt"
        given = json.dumps({**arguments, "out": f"{folder}/run"})
        environment = {**os.environ, "YOLO_OFFLINE": "true", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
        if python != sys.executable:  # its environment alone
            environment.pop("PYTHONPATH", None)
        environment["OMP_NUM_THREADS"] = str(arguments["workers"])
        with out.open("w") as stdout, errors.open("w") as stderr:
            command = [python, str(program), given]
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, cwd=folder)
            memory = Memory(process.pid)
            memory.start()
            try:
                process.wait(arguments["limit"])
            except subprocess.TimeoutExpired:
                process.kill()
                return f"not done after {arguments['limit']} s"
        lines = [line for line in out.read_text().splitlines() if line.startswith("RESULT ")]
        if not lines:
            said = (errors.read_text().strip() or out.read_text().strip() or "nothing said").splitlines()
            return said[-1][:160]
        return {**json.loads(lines[-1][7:]), "memory": memory.peak / 2**20}


def subset(folder: Path, number: int, target: Path) -> int:
    """Copy the first images of a folder, which all contestants get."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:number]
    for place, path in enumerate(found):
        shutil.copy(path, target / f"{place:05d}{path.suffix.lower()}")
    return len(found)


def environments(arguments: argparse.Namespace) -> dict[str, str]:
    """The Python of each contestant; of those without one, why, said at once."""
    pythons = dict.fromkeys(CONTESTANTS, sys.executable)
    for name, packages in PACKAGES.items():
        given = getattr(arguments, name.replace("-", "_"))
        if given is None and arguments.make_environments:
            place = Path(arguments.make_environments) / name
            given = str(place / "bin" / "python")
            made = subprocess.run(["uv", "venv", "-q", str(place)], check=False).returncode == 0
            if (
                not made
                or subprocess.run(["uv", "pip", "install", "-q", "--python", given, *packages], check=False).returncode
            ):
                print(f"{name}: skipped, it could not be installed")
                given = ""
        elif given is None:
            print(f"{name}: skipped, no environment (--{name} PYTHON, or --make-environments FOLDER)")
        pythons[name] = given or ""
    return {name: python for name, python in pythons.items() if python and name in arguments.only}


def show(title: str, results: dict[str, list[dict[str, float]]]) -> None:
    """The table of one folder: medians with least and most, ratios to the tutorial turn by turn."""
    print(f"\n{title}")
    heads = f"{'images/s':>20} {'cpu ms/image':>13} {'waiting':>8} {'memory MB':>10}"
    print(f"{'':>20} {heads} {'x tutorial':>18} {'by cpu':>7} {'x lightly-train':>18} {'by cpu':>7}")
    for name, rows in results.items():
        if not rows:
            continue
        rates = [row["rate"] for row in rows]
        cells = [f"{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f})"]
        for other in ("tutorial", "lightly-train"):
            pairs = list(zip(rows, results.get(other, []), strict=False))
            ratios = [a["rate"] / b["rate"] for a, b in pairs]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if pairs else ""
            by_cpu = f"{statistics.median(b['cpu'] / a['cpu'] for a, b in pairs):.2f}" if pairs else ""
            cells.append(f"{spread:>18} {by_cpu:>7}")
        cpu, wait, memory = (statistics.median(row[key] for row in rows) for key in ("cpu", "wait", "memory"))
        print(f"{name:>20} {cells[0]:>20} {cpu:>13.1f} {wait:>8.0%} {memory:>10.0f} {cells[1]} {cells[2]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER with images")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, help="threads of the step, and workers; by default all cores")
    parser.add_argument("--limit", type=int, default=600, help="seconds for one turn")
    parser.add_argument("--lightly-train", metavar="PYTHON")
    parser.add_argument("--stable-pretraining", metavar="PYTHON")
    parser.add_argument("--make-environments", metavar="FOLDER", help="install what is missing here, with uv")
    parser.add_argument("--only", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    arguments = parser.parse_args()
    pythons = environments(arguments)
    all_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = arguments.cores or all_cores
    for name, folder in (item.split("=", 1) for item in arguments.folders):
        with tempfile.TemporaryDirectory() as work:
            data = Path(work) / "images"
            data.mkdir()
            count = subset(Path(folder), arguments.images, data)
            if count < arguments.batch:
                print(f"{name}: skipped, {count} images in {folder}")
                continue
            results: dict[str, list[dict[str, float]]] = {contestant: [] for contestant in pythons}
            told = {key: getattr(arguments, key) for key in ("device", "batch", "steps", "warm_up", "limit")}
            told |= {"data": str(data), "cache": f"{work}/cache", "workers": cores}
            for _ in range(arguments.rounds):
                for contestant, python in list(pythons.items()):
                    more = {"precision": "32"} if contestant == "headstart-32" else {}
                    found = turn(contestant, python, {**told, "more": more})
                    if isinstance(found, str):
                        print(f"{contestant}: skipped, {found}", flush=True)
                        del pythons[contestant]
                    else:
                        results[contestant].append(found)
                        figures = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
                        print(f"{name}, {contestant}: {figures}", flush=True)
            title = f"{name}: {count} images, batch {arguments.batch}, {arguments.device}, {cores} cores"
            show(f"{title}, {arguments.steps + 1 - arguments.warm_up} steps a turn, {arguments.rounds} turns", results)


if __name__ == "__main__":
    main()
