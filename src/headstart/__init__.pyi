"""Written by tools/signatures.py from the settings; change these, not this file."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from headstart import callbacks as callbacks
from headstart.detectors.ultralytics import load_into as load_into
from headstart.errors import UserError as UserError
from headstart.jobs.compare import Comparison as Comparison
from headstart.jobs.ending import Run as Run

__all__ = ["Comparison", "Run", "UserError", "callbacks", "compare", "load_into", "pretrain", "probe"]

def pretrain(
    *,
    data: str | PathLike[str] | Sequence[str | PathLike[str]] = ...,
    model: Any = "yolo11n.yaml",
    method: str | PathLike[str] = ...,
    preset: str | None = ...,
    init: str | PathLike[str] | None = None,
    every: float = 0.5,
    epochs: float | None = None,
    steps: int | None = None,
    budget: str | None = None,
    batch: int | Literal["auto"] = ...,
    imgsz: int = ...,
    local_imgsz: int = ...,
    workers: int | Literal["auto"] = "auto",
    cache: Literal["auto", "ram", "disk", "device", "off"] = "auto",
    cache_dir: str | PathLike[str] | None = None,
    device: str | int = "auto",
    devices: str | int | Sequence[int] = "1",
    nodes: int = 1,
    accumulate: int = 1,
    sync_bn: bool | Literal["auto"] = "auto",
    precision: Literal["auto", "32", "bf16", "16", 32, 16] = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    compile: bool | Literal["auto"] = "auto",
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    export: Literal["student", "teacher"] = ...,
    resume: bool = False,
    overwrite: bool = False,
    log_every: int = 10,
    save_every: int = 500,
    probe_every: int = 500,
    probe_labels: bool = False,
    report: bool = True,
    trust: bool = False,
    loggers: str | Mapping[str, Any] | PathLike[str] | Sequence[str | Mapping[str, Any] | PathLike[str]] = [],
    cfg: str | PathLike[str] | None = None,
    optimizer: Literal["adam", "adamw", "sgd"] = ...,
    lr: float = ...,
    init_rate: float = ...,
    lr_for: int | None = ...,
    weight_decay: float = ...,
    momentum: float = ...,
    warmup: float = ...,
    schedule: Literal["constant", "cosine", "linear"] = ...,
    clip: float | None = ...,
    anchor: float = ...,
    view_scale: tuple[float, float] | list[float] = ...,
    color: float = ...,
    hidden_dim: int = ...,
    output_dim: int = ...,
    ema_start: float = ...,
    ema_end: float = ...,
    temperature: float = ...,
    queue: int = ...,
    dense: float = ...,
    locals: int = ...,
    global_scale: tuple[float, float] | list[float] = ...,
    local_scale: tuple[float, float] | list[float] = ...,
    crop_fallback: Literal["center", "anywhere"] = ...,
    bottleneck_dim: int = ...,
    student_temp: float = ...,
    teacher_temp: float = ...,
    warmup_teacher_temp: float = ...,
    warmup_teacher_temp_epochs: float = ...,
    center_momentum: float = ...,
    merge_views: bool = ...,
    freeze_last_layer: float = ...,
    freeze_steps: int = ...,
    freeze_share: float = ...,
    guard: bool = ...,
    teacher: Any = ...,
    teacher_weights: str | PathLike[str] | None = ...,
    teacher_mean: tuple[float, float, float] | list[float] | None = ...,
    teacher_std: tuple[float, float, float] | list[float] | None = ...,
    jitter: float = ...,
    cosine: float = ...,
    smooth_l1: float = ...,
    cka: float = ...,
    regularize: float = ...,
    slices: int = ...,
    proposals: str | PathLike[str] | None = ...,
    proposal_imgsz: int | None = ...,
    max_objects: int | None = ...,
    min_score: float = ...,
    max_area: float = ...,
    clusters: int = ...,
    components: int = ...,
    flip: float = ...,
    letterbox: float = ...,
    mosaic: float = ...,
    zoom: float | None = ...,
    close_mosaic: float = ...,
    overlap: float = ...,
    blur: float = ...,
    boxes: int = ...,
    box_scale: tuple[float, float] | list[float] = ...,
    box_ratio: tuple[float, float] | list[float] = ...,
    read_at: Literal["size", "all"] = ...,
    cells: float = ...,
    roi: int = ...,
    contrast: float = ...,
    variance: float = ...,
    variance_over: Literal["image", "batch"] = ...,
    naming: Literal["auto", "network", "both"] = ...,
    calibrate: bool = ...,
    labels: str | PathLike[str] | None = ...,
    export_labels: str | PathLike[str] | None = ...,
    burn_in: float | None = ...,
    settle: float | None = ...,
    labelled: float | None = ...,
    rounds: int = ...,
    ema: float = ...,
    average: bool | None = ...,
    keep: float | Literal["class"] = ...,
    unsure: float = ...,
    mixup: float = ...,
    balance: float = ...,
    held_out: float = ...,
    label_imgsz: int | None = ...,
    invariance: float = ...,
    covariance: float = ...,
    options: Mapping[str, Any] = ...,
) -> Run:
    """Pretrain a detector on unlabelled images.

    Args:
        data: images, videos and shards (.tar, .zip): a folder (nested), a glob, a .txt list, files, shards at s3://
            and the like, or an Ultralytics dataset YAML (images of its train part); several as [a, b] or by
            repeating data=
        model: detector: a .yaml (random weights), a .pt, a live YOLO object, or torchvision:NAME
        method: a method's name, the path of a .py file with one, or auto; by default selftrain with labels=, else
            objects from trained weights, where the head learns boxes and the objects that are found fit the images,
            and dino from random ones
        preset: named set of defaults of the method; by default its first
        init: a .pt whose weights the model starts from, e.g. COCO weights
        every: seconds between two frames of a video that are looked at; one that shows the same as the last is left
            out; 0: all
        epochs: passes over the images (this or steps)
        steps: optimizer steps (this or epochs); without either by images, start and machine
        budget: time that pretraining may take, such as 30m, 2h or 45s: sets the steps (in place of them)
        batch: images a step; auto: as many as memory has room for, the method's own number at most
        imgsz: side of images or crops, pixels
        local_imgsz: side of the local crops, pixels
        workers: processes that read images; 0 reads in the main process
        cache: where decoded images are kept: on the disk for later runs, in memory, on the training device, or
            nowhere; auto chooses by their size
        cache_dir: folder of cache=disk; by default the user's cache folder
        device: auto, cpu, cuda, mps, or the index of a GPU
        devices: how many devices of a machine train together, as 4 or all, or which GPUs, as 0,2; on a CPU:
            processes
        nodes: machines that train together, each with this command; torchrun and srun say it themselves
        accumulate: parts in which a device takes its share of the batch, one by one, where memory is short
        sync_bn: batch norm over the images of all devices together; auto: where there are several
        precision: arithmetic of the network (losses are float32): auto is bf16 where the hardware has it
        channels_last: memory layout of the network; auto is true on CPUs, and on GPUs in half precision
        compile: try torch.compile, which takes minutes at the start; auto does not
        seed: seed of weights, image order and views
        out: run folder; by default a new one below runs/pretrain
        export: whose weights the checkpoint gets
        resume: go on with the run in out=; its settings are taken from the folder
        overwrite: replace the run in out=
        log_every: steps between two lines of metrics.jsonl
        save_every: steps between two checkpoints of the run; after five minutes there is one in any case
        probe_every: steps between two probes of the features; 0: none
        probe_labels: look at labels beside the images, for probes and for whether found objects fit; never trained
            on
        report: draw report.html at the end
        trust: let code run that files bring along: pickled classes, scripts in YAMLs, Python files that a file
            names
        loggers: where measures go beside the run's folder: csv, tensorboard, wandb, mlflow, or the path of a .py
            with a logger; settings of one as [csv, {wandb: {project: x}}]
        cfg: a YAML file with options; those given here override it
        optimizer: optimizer
        lr: peak learning rate; from trained weights times init_rate, unless you give one
        init_rate: from trained weights: factor on lr, unless you give lr
        lr_for: batch that lr is meant for: it is scaled to the real one in proportion; none: not scaled
        weight_decay: weight decay; biases and norms have none
        momentum: momentum of sgd; beta1 of adam
        warmup: share of the steps over which the learning rate rises
        schedule: learning rate after the warm-up; cosine: to 0, linear: in a straight line to a hundredth
        clip: largest gradient norm; none: not clipped
        anchor: from trained weights: weight of the distance from the features that the run started with
        view_scale: byol, densecl, objects, selftrain, simclr, vicreg: share of the image's area that a view covers;
            distill: share of the image's area that the view covers; pyramid: share of the image's area that each of
            the two views covers
        color: byol, densecl, simclr, vicreg: strength of the color changes: 0 none, 1 as DINO, 2 as SimCLR;
            pyramid: strength of the color changes: 0 none, 1 as DINO
        hidden_dim: byol, pyramid: hidden width of projector and predictor; densecl: hidden width of the projection
            heads; dino, lejepa, simclr: hidden width of the projection head; vicreg: hidden width of the expander
        output_dim: byol, lejepa, simclr: width of the projection; densecl: width of the projections; dino: scores
            of the projection head, K; pyramid: width of a box's projection; vicreg: width of the embedding
        ema_start: byol, densecl, dino, pyramid: momentum of the teacher at the first step
        ema_end: byol, densecl, dino, pyramid: momentum of the teacher at the last step (cosine between)
        temperature: densecl: temperature of the contrastive losses; pyramid, simclr: temperature of the contrastive
            loss
        queue: densecl: projections of earlier batches that serve as negatives
        dense: densecl: share of the loss between cells; pyramid: share of the comparison cell by cell, not box by
            box
        locals: dino, lejepa: local crops an image, beside the two global ones
        global_scale: dino, lejepa: share of the image's area that a global crop covers
        local_scale: dino, lejepa: share of the image's area that a local crop covers
        crop_fallback: dino: images too wide or tall for a crop: the crop in the center, or one anywhere in them
        bottleneck_dim: dino: width before the last layer of the projection head
        student_temp: dino: temperature of the student's scores
        teacher_temp: dino: temperature of the teacher's scores
        warmup_teacher_temp: dino: the teacher's temperature at the first step
        warmup_teacher_temp_epochs: dino: epochs from there to teacher_temp
        center_momentum: dino: moving average of the teacher's center
        merge_views: dino: crops of one size in one pass: faster on GPUs; batch norm then sees all of them together
        freeze_last_layer: dino: epochs in which the head's last layer is not trained
        freeze_steps: dino: steps in which it is not trained, where that is longer
        freeze_share: dino: share of all steps that both may take at most
        guard: dino: let the teacher's entropy steer its temperature away from collapse
        teacher: distill: who is learnt from: a YOLO's .pt, the name of a timm model, or a torch module; objects:
            network whose features are clustered: a YOLO's .pt, the name of a timm model, or a torch module; none:
            the backbone of the detector that finds the objects; selftrain: trained network whose features tell the
            classes of what is found, e.g. a timm model's name; auto: tf_efficientnet_lite0, if it is on this
            machine or can be downloaded; none: the detector names them itself
        teacher_weights: distill, objects, selftrain: file with the weights of a timm model as teacher; none: timm's
            own, downloaded once
        teacher_mean: distill, objects, selftrain: mean of each color that a torch module as teacher was trained
            with; none: 0
        teacher_std: distill, objects, selftrain: standard deviation of each color, likewise; none: 1
        jitter: distill: probability of changed colors, which both networks see; objects, selftrain: probability of
            changed colors
        cosine: distill: weight of one minus cosine between the features of a cell
        smooth_l1: distill: weight of smooth L1 between standardized features
        cka: distill: weight of one minus the alignment of the cells' similarities (CKA)
        regularize: lejepa: weight of the regularizer at 128 images a step
        slices: lejepa: random directions in which the distribution is tested
        proposals: objects: trained detector that finds the objects (a .pt); none: the run's own start, init= or
            model=; selftrain: trained detector (a .pt) that labels images at once, in place of burn-in; one of
            other classes finds the objects, and teacher= names them; none: the detector that learns labels them,
            after burn-in
        proposal_imgsz: objects: longer side at which images are searched for objects, pixels; selftrain: longer
            side at which proposals= looks at images, pixels; none: that of its own training
        max_objects: objects: objects that are kept an image at most; selftrain: labels an image at most; none: 100,
            or twice your most
        min_score: objects: least score of an object, as a share of the image's best
        max_area: objects: largest object, as a share of the image's area
        clusters: objects: clusters into which the objects are divided by how they look
        components: objects: principal components of the features that are clustered
        flip: objects, selftrain: chance that a view is mirrored; 0 where left and right tell classes apart
        letterbox: objects, selftrain: images too wide or tall for a crop of view_scale: share of their views that
            show the whole image in a gray square; the others are crops anywhere in it
        mosaic: objects, selftrain: share of the steps with mosaics of four images
        zoom: objects, selftrain: mosaics are magnified by 1 - zoom to 1 + zoom; none: 0.5, or for selftrain 0 where
            labelled objects of one class differ less in size than that
        close_mosaic: objects: share of the steps, at the end, without mosaics; selftrain: last share of burn-in and
            each round without mosaics
        overlap: pyramid: least share of the smaller view that the other covers
        blur: pyramid: probability of a blurred view
        boxes: pyramid: boxes an image that both views share
        box_scale: pyramid: side of a box as a share of the part that both views show
        box_ratio: pyramid: width over height of a box
        read_at: pyramid: levels at which the student reads a box: the one for its size, or every one
        cells: pyramid: cells of its level's map that the side of a box should span
        roi: pyramid: points a side at which a box is read
        contrast: pyramid: weight of the contrastive loss between boxes; the cosine's is 1
        variance: pyramid: weight of the floor under the variance of the boxes; vicreg: weight of the floor under
            the variance of each output
        variance_over: pyramid: boxes that must differ from each other
        naming: selftrain: who tells the class of what is found where there is a teacher=: the network, or both it
            and the detector; auto: whichever names the held-out labels better, from 30 boxes on, else the network
            (both with proposals= of your classes)
        calibrate: selftrain: move the teacher's boxes by what its boxes on labelled images end beside the labels
        labels: selftrain: dataset YAML: train are the labelled images (among data or not), names the classes
        export_labels: selftrain: new folder for the labels that the teacher gave in the end, as an Ultralytics
            dataset, with their scores in a file beside
        burn_in: selftrain: first share of the steps, on labelled images; none: by their number (0.35-0.65)
        settle: selftrain: share of the steps, at the end, on labelled images alone, whole, at a tenth of the
            learning rate; none: 0.05, or 0 with fewer than 50 labelled boxes a class
        labelled: selftrain: share of labelled images in the steps between; none: their share of all images, a tenth
            at least
        rounds: selftrain: how often the teacher labels the images; the learning rate falls before each time
        ema: selftrain: momentum of the teacher's weights
        average: selftrain: the mean of the teachers at the ends of cycles, not the last one; none: yes, but not
            from scratch
        keep: selftrain: score from which what the teacher finds is taken for an object; class: one for each class,
            so that as many are kept as from 0.4 on, and of each class by its share of the labels
        unsure: selftrain: score below which it is taken for background, up to keep
        mixup: selftrain: share of the mosaics that are mixed with another of their step
        balance: selftrain: how much more often images of rare classes come: 0 as others, 1 so often that all
            classes are about equally frequent, 0.5 as in LVIS; labelled images, and unlabelled ones by the labels
            of the teacher
        held_out: selftrain: share of the labelled images that the teacher's labels are judged on
        label_imgsz: selftrain: side of the views of burn-in, and at which its teacher looks at images, pixels;
            none: imgsz
        invariance: vicreg: weight of the distance between the two views
        covariance: vicreg: weight of the covariances between outputs
        options: options of a method of your own, by name; they may also be given as they are
    """

def compare(
    *,
    data: str | PathLike[str] = ...,
    model: str | PathLike[str] = "yolo11n",
    starts: str | PathLike[str] | int | Sequence[str | int | PathLike[str]] = ["scratch", "coco"],
    reference: str | None = None,
    labels: str | int | PathLike[str] | Sequence[str | int | PathLike[str]] = ["10%", "100%"],
    seeds: int | Sequence[int] = [0, 1, 2],
    epochs: int | None = None,
    steps: int | None = None,
    imgsz: int = 640,
    batch: int = 16,
    optimizer: str = "AdamW",
    lr: float | Sequence[float] = [0.001, 0.0003, 0.003],
    lr_val: float = 0.2,
    start_lr: Mapping[str, Any] = {},
    split: Literal["val", "test"] = "val",
    unlabelled: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    longer: Literal["auto", "true", "false"] | bool = "auto",
    device: str | int = "auto",
    jobs: int | Literal["auto"] = "auto",
    launcher: Literal["local", "ray"] = "local",
    ray: str | None = None,
    workers: int = 4,
    out: str | PathLike[str] | None = None,
    plan: bool = False,
    overwrite: bool = False,
    pictures: int = 6,
    report: bool = True,
    loggers: str | Mapping[str, Any] | PathLike[str] | Sequence[str | Mapping[str, Any] | PathLike[str]] = [],
    trust: bool = False,
    extra: Mapping[str, Any] = {},
    cfg: str | PathLike[str] | None = None,
) -> Comparison:
    """Fine-tune a detector from several starts, all else equal, and say which is better.

    Args:
        data: Ultralytics dataset YAML: train is the labelled pool that the budgets are cut from
        model: the detector of every start: the name of its YAML, or torchvision:NAME
        starts: what to compare: scratch, coco, coco-backbone, checkpoints, run folders, or recipes (a .yaml of
            pretraining options, made anew for each list of labels); coco-longer: COCO fine-tuned for as many steps
            in all, mine-longer: likewise mine; mine-as-is: mine without any fine-tuning; name=path names one,
            coco=path.pt says where the COCO weights are
        reference: the start that others are measured against first, own weights, say (default: coco)
        labels: label budgets: shares of the labelled images, or counts
        seeds: how many seeds, or the seeds themselves as [0, 1, 2]
        epochs: epochs of every fine-tuning (this or steps; default: 100)
        steps: least batches of every fine-tuning, rounded up to whole epochs, as many at each budget; Ultralytics
            makes an update of nbs (64) images, so of several batches where these are smaller
        imgsz: side of the images, pixels
        batch: images a batch
        optimizer: SGD, Adam, AdamW, or another optimizer of the detector's own trainer
        lr: learning rates; of several, each start gets the one that does best on a validation part of its labelled
            images (the first where they are equal); one alone saves the search
        lr_val: share of the labelled images that the rate is chosen on
        start_lr: rates of single starts by their names, chosen elsewhere and not searched for, such as a
            finetune.yaml advises: {"mine": 0.0001}
        split: part of the dataset that the figures are measured on
        unlabelled: images without labels that recipes learn from, by default the labelled pool; or that starts were
            pretrained on, where no run folder says so: looked at for leaks
        longer: one longer scratch run that gets the steps that pretraining took: auto where these are known
        device: auto (every GPU, else CPU), cpu, mps, a GPU's index, or several as 0,1
        jobs: fine-tunings side by side: auto is one a GPU, and on a CPU as many as cores and memory carry
        launcher: run on this machine, or on those of a Ray cluster
        ray: the cluster's address, HOST:6379, or auto; by default RAY_ADDRESS, else Ray runs here alone
        workers: processes that load images, each fine-tuning (none on a CPU)
        out: folder of the comparison; by default runs/compare/<data>-<model>
        plan: print the cells, their cost and time from a short probe, and train nothing
        overwrite: replace the comparison in out=
        pictures: test images on which the detections of all starts are shown
        report: draw report.html at the end
        loggers: where each training is logged, as a run of a group: csv, tensorboard, wandb, mlflow, or the path of
            a .py with a logger; settings of one as [csv, {wandb: {project: x}}]
        trust: let code run that files bring along: pickled classes, scripts in YAMLs, Python files that a file
            names
        extra: more arguments of the detector's own trainer (Ultralytics' train); single ones as key=value
        cfg: a YAML file with options; those given here override it
    """

def probe(
    source: str | PathLike[str],
    data: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    every: float = 0.5,
    images: int = 256,
    imgsz: int = 224,
    labels: bool = True,
    device: str | int = "cpu",
    trust: bool = False,
) -> dict[str, dict[str, float]]:
    """Measure the features of a run or a checkpoint, without training.

    Args:
        source: a finished run's folder, a .pt, or a model YAML (random weights, to compare with)
        data: images to look at, as for pretrain
        every: seconds between two frames of a video that are looked at; one that shows the same as the last is left
            out; 0: all
        images: how many of them
        imgsz: side to which they are stretched, pixels
        labels: use labels that lie beside the images for a kNN of boxes
        device: auto, cpu, cuda, mps, or the index of a GPU
        trust: let code run that files bring along: pickled classes, scripts in YAMLs, Python files that a file
            names
    """
