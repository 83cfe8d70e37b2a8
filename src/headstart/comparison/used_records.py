"""The types of ``results.json`` that say what a training was meant to read, and what it read."""

from __future__ import annotations

from pydantic import NonNegativeInt

from headstart.comparison.start_records import Record


class CountFacts(Record):
    """Images, how many of them have objects, and their objects."""

    images: NonNegativeInt
    labelled: NonNegativeInt
    objects: NonNegativeInt

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.images:,} images, {self.labelled:,} of them with {self.objects:,} objects"


class UsedFacts(Record):
    """What is trained on, and what is measured on."""

    train: CountFacts
    test: CountFacts
