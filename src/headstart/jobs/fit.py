"""Whether proposals fit, before a run begins: the look at a few images that chooses the method, or warns."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.images.index import ImageIndex
from headstart.images.labels import Keypoints, keypoints_for, label_path, read_labels
from headstart.images.samples import sample_images
from headstart.launch.devices import own_device
from headstart.pseudolabels.fit import IMAGES, Fit, look
from headstart.pseudolabels.search import Search, fitted_from
from headstart.settings.method_options import ProposalOptions
from headstart.settings.schema import PretrainSettings


def fit_of(run: PretrainSettings, options: ProposalOptions, detector: Detector, images: ImageIndex) -> Fit | None:
    """The fit of what the run's `proposals`, or its own `detector`, find; None where no image can be read.

    Labels beside the images are looked at with ``probe_labels=true`` alone.

    Raises:
        UserError: The proposals cannot be loaded, or give no boxes.
    """
    search = Search.of(options, run.seed)
    device = torch.device(str(own_device(run.device, run.devices)))
    samples = sample_images(images, IMAGES, fitted_from(search.imgsz))
    with torch.random.fork_rng(devices=[]):  # the method's heads are to be those of a run without this look
        finder = detector if options.proposals is None else load_detector(options.proposals, where="proposals")
        finder.module.to(device)
        try:
            labels = partial(_boxes, keypoints=keypoints_for("", images.keypoints)) if run.probe_labels else None
            fit = look(finder, samples, search, device=device, labels=labels)
        finally:
            finder.module.to("cpu")
    return fit if fit.images else None


def _boxes(image: str, keypoints: Keypoints | None) -> Tensor:
    return torch.from_numpy(read_labels(label_path(image), keypoints=keypoints).array()[:, 1:])
