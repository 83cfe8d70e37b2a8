"""What benchmarks/speed.py runs, each contestant in a process of its own: programs that print a line of figures."""

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

# As published; "tuned" has the settings that a careful user would find, "half" computes the network in bf16.
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

tuned, half = A["more"].get("tuned", False), A["more"].get("half", False)
layout = torch.channels_last if tuned else torch.contiguous_format
device = torch.device(A["device"])
model = DINO(nn.Sequential(*YOLO("yolo11n.yaml", verbose=False).model.model[:11]).requires_grad_(True))
model.to(device, memory_format=layout).train()
data = LightlyDataset(A["data"], transform=DINOTransform())
kept = {"persistent_workers": True, "prefetch_factor": 4, "pin_memory": A["device"] != "cpu"} if tuned else {}
loader = torch.utils.data.DataLoader(data, A["batch"], shuffle=True, drop_last=True, num_workers=A["workers"], **kept)
criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
for epoch in range(1000):
    momentum = cosine_schedule(epoch, 1000, 0.996, 1)
    for batch in loader:
        update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
        update_momentum(model.student_head, model.teacher_head, m=momentum)
        views = [view.to(device, memory_format=layout) for view in batch[0]]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            teacher_out = [model.forward_teacher(view) for view in views[:2]]
            student_out = [model(view) for view in views]
        loss = criterion([out.float() for out in teacher_out], [out.float() for out in student_out], epoch=epoch)
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
    "tuned": PROCESSOR + WATCH + TUTORIAL,
    "tuned-bf16": PROCESSOR + WATCH + TUTORIAL,
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
