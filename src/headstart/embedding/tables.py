"""Parquet files of features, written batch by batch; everything in them is a plain column."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.embedding.features import Described
from headstart.errors import UserError


def missing() -> UserError | None:
    """Why no Parquet file can be written here; None where it can."""
    if find_spec("pyarrow") is None:
        return UserError(
            "pyarrow is not installed, which writes Parquet files", where="out", hint="pip install pyarrow"
        )
    return None


class Tables:
    """The file of the images and, where wanted, that of the boxes; close it when all is written.

    Args:
        images: Path of the one.
        boxes: Path of the other; None for none.
        width: Numbers of a feature.
        about: Plain values, kept in the files' own metadata under ``headstart``.
    """

    def __init__(self, images: Path, boxes: Path | None, width: int, about: Mapping[str, Any]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        feature = pa.list_(pa.float32(), width)
        held = {"headstart": json.dumps(dict(about))}
        image = [("image", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("labelled", pa.bool_())]
        image += [("uncertainty", pa.float32()), ("feature", feature)]
        corners = [(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
        box = [("image", pa.string()), *corners, ("class", pa.int32()), ("score", pa.float32())]
        box += [("source", pa.string()), ("feature", feature)]
        self._schemas = {"images": pa.schema(image, metadata=held), "boxes": pa.schema(box, metadata=held)}
        self._writers = {"images": parquet.ParquetWriter(images, self._schemas["images"])}
        if boxes is not None:
            self._writers["boxes"] = parquet.ParquetWriter(boxes, self._schemas["boxes"])

    def write(self, found: Described, paths: list[str], labelled: list[bool]) -> None:
        """Append what is known of a batch."""
        names = [text_of(path) for path in paths]
        sides = {"width": [wide for _, wide in found.sizes], "height": [high for high, _ in found.sizes]}
        unknown: list[Any] = [None] * len(names)
        uncertainty: list[Any] = unknown if found.uncertainty is None else list(found.uncertainty)
        columns: dict[str, list[Any]] = {"image": names, **sides, "labelled": labelled, "uncertainty": uncertainty}
        self._append("images", columns, found.features)
        if "boxes" in self._writers and any(found.boxes):
            owned = [(name, box) for name, some in zip(names, found.boxes, strict=True) for box in some]
            columns = {"image": [name for name, _ in owned]}
            columns |= {name: [box.corners[at] for _, box in owned] for at, name in enumerate(("x0", "y0", "x1", "y1"))}
            columns |= {"class": [box.label for _, box in owned], "score": [box.score for _, box in owned]}
            columns |= {"source": [box.source for _, box in owned]}
            self._append("boxes", columns, found.box_features)

    def _append(self, which: str, columns: Mapping[str, list[Any]], features: Tensor) -> None:
        import pyarrow as pa

        flat = pa.array(features.float().contiguous().numpy().reshape(-1))
        feature = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
        schema = self._schemas[which]
        arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name != "feature"]
        self._writers[which].write_table(pa.Table.from_arrays([*arrays, feature], schema=schema))

    def close(self) -> None:
        """Finish both files."""
        for writer in self._writers.values():
            writer.close()


def text_of(path: str) -> str:
    """A path as a table can hold it; bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
