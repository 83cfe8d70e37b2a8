"""Options of the commands around a training: doctor, embed, pack, export."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

from pydantic import Field

from headstart.settings.schema import EVERY, TRUST, Options

# Pydantic has an old method of the name `json`, which nothing here calls.
warnings.filterwarnings("ignore", 'Field name "json" in "DoctorSettings" shadows', UserWarning)


class DoctorSettings(Options):
    """What ``headstart doctor`` needs to know."""

    data: str | None = Field(
        None, description="an Ultralytics dataset YAML, or images as for pretrain; without it the machine is looked at"
    )
    labels: str | None = Field(None, description="dataset YAML of the labelled images, where data= are images")
    images: str | list[str] | None = Field(
        None, description="images without labels to pretrain on: a folder, a glob, a .txt list, files, videos"
    )
    every: float = Field(0.5, ge=0, description=EVERY)
    model: str = Field(
        "yolo11n.pt",
        description="trained detector on this machine, a .pt or a finished run's folder: how well it knows the images "
        "is measured on 64 of them; nothing is downloaded",
    )
    imgsz: int = Field(640, ge=32, le=4096, description="side that a training scales images to, pixels")
    device: str = Field("auto", description="auto, cpu, cuda, mps, or the index of a GPU")
    json: bool | str = Field(  # type: ignore[assignment]
        False, description="a file for what was found, in full; alone (--json) it is printed in place of the words"
    )
    trust: bool = Field(False, description=TRUST)


class EmbedSettings(Options):
    """What ``headstart embed`` needs to know."""

    data: str | list[str] = Field(description="images and videos, as for pretrain")
    every: float = Field(0.5, ge=0, description=EVERY)
    model: str = Field("yolo11n.pt", description="a finished run's folder, a .pt, or a model YAML (random weights)")
    out: str = Field(
        "features.parquet",
        description="Parquet file for the features of the images; the other files lie beside it and begin like it",
    )
    labels: str | None = Field(
        None,
        description="dataset YAML: its train part are the labelled images (they may be among data); their boxes are "
        "those of the labels, and what to label next is chosen away from them",
    )
    boxes: bool = Field(True, description="features of boxes as well: labelled ones, and elsewhere the model's own")
    level: Literal["backbone", "neck"] = Field(
        "backbone", description="maps that are averaged: the backbone's last one, or all that the head reads"
    )
    imgsz: int = Field(
        320, ge=64, le=4096, multiple_of=64, description="longer side to which images are scaled, pixels"
    )
    next: int = Field(50, ge=0, description="images to choose for labelling; 0: none")
    near: float | None = Field(
        None, ge=0, description="distance of near-duplicates; none: 0.3 of what is usual between neighbors in the pool"
    )
    uncertainty: bool | Literal["auto"] = Field(
        "auto",
        description="choose among the images of which the model is least sure; auto does where its classes are those "
        "of labels=",
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field("auto", description="processes that read images")
    device: str = Field("auto", description="auto, cpu, cuda, mps, or the index of a GPU")
    overwrite: bool = Field(False, description="replace the files of an earlier one")
    trust: bool = Field(False, description=TRUST)


class PackSettings(Options):
    """What ``headstart pack`` needs to know."""

    data: str | list[str] = Field(description="images, videos, shards and dataset YAMLs, as for pretrain")
    out: str = Field(description="a new or empty folder for the shards")
    shard_size: str = Field("1GB", description="what a shard takes at most, such as 500MB or 2GiB; 100 kB at least")
    labels: str | None = Field(
        None,
        description="dataset YAML: the images of its train part are packed with their labels (they may be among data); "
        "those of a dataset YAML in data= are, too",
    )
    every: float = Field(0.5, ge=0, description=EVERY)
    overwrite: bool = Field(False, description="replace the shards in out=")


class ExportSettings(Options):
    """What ``headstart export`` needs to know."""

    source: str = Field(description="a finished run's folder, or a .pt")
    format: Literal["safetensors", "onnx", "timm"] = Field(
        "safetensors",
        description="the backbone as a safetensors file; as ONNX, checked against torch; or as a timm model's weights, "
        "where timm has the architecture",
    )
    out: str | None = Field(None, description="a new or empty folder; by default export-FORMAT beside the checkpoint")
    imgsz: int = Field(224, ge=64, le=4096, multiple_of=32, description="side of the image that onnx is traced with")
    comparison: str | None = Field(None, description="folder of a comparison whose verdict the model card repeats")
    overwrite: bool = Field(False, description="replace an earlier export in out=")
    trust: bool = Field(False, description=TRUST)
