"""Test images among images that something was trained on: by content, by what they show, and as frames beside others.

Equal content is an error before the first training. Files that differ and look the same, copies saved anew, fail a
check; frames of one recording on both sides are told, and leave open what the figures are worth elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from headstart.comparison import likeness
from headstart.comparison.dataset import Dataset
from headstart.comparison.likeness import Thumbnails
from headstart.comparison.origins import Behind, began_with, behind, of_run, pretraining_images
from headstart.comparison.recipes import RecipeStart
from headstart.comparison.start_records import LeakFacts, PretrainingFacts
from headstart.comparison.starts import LONGER, Start
from headstart.errors import UserError, few
from headstart.images.index import find_images
from headstart.images.samples import spread
from headstart.images.shards import hash_of, size_of
from headstart.run.display import make_console

MOST = 100_000
"""Images that are decoded to look for copies among them; of more, evenly spread ones."""
_MANY = 5_000
"""Images from which on it is said that they are looked at: it takes a while."""


class Leaks(NamedTuple):
    """What is known of test images among images that something was trained on.

    Attributes:
        test: Among the labelled images.
        recordings: Frames of one recording among test and labelled images.
        starts: Start -> in its pretraining; those that had none are not there.
        notes: What is to be said before the first training: these, and images that cannot be read.
    """

    test: LeakFacts
    recordings: LeakFacts
    starts: dict[str, LeakFacts]
    notes: tuple[str, ...]


def look_for_leaks(
    dataset: Dataset,
    starts: Sequence[Start],
    pretrainings: Mapping[str, PretrainingFacts],
    recipes: Mapping[str, RecipeStart],
    named: Sequence[str],
    cache: Path,
) -> Leaks:
    """Look for test images in the labelled pool and in every pretraining.

    Args:
        dataset: The labelled data.
        starts: What is compared.
        pretrainings: Start -> what its run folder tells.
        recipes: Start -> the recipe that makes it.
        named: Images of ``unlabelled=``.
        cache: File that keeps what the images look like.

    Raises:
        UserError: Files of the same content are on both sides; with examples.
    """
    own = _own_images(starts, pretrainings, recipes)
    more = {start.name: _behind(start, pretrainings, recipes) for start in starts}
    taken = any(not one.recipe.options.get("data") for one in recipes.values())
    groups: dict[str, Sequence[str]] = {f"train of {dataset.yaml.name}": dataset.pool}
    groups |= {"unlabelled": named} if named else {}
    groups |= {f"the {'images' if name in recipes else 'pretraining'} of {name}": paths for name, paths in own.items()}
    groups |= {f"what {key} of {name} learnt from": of for name, one in more.items() for key, of in one.images.items()}
    refuse_leaks(dataset.test, groups)
    looks = _Looks(dataset.test, [path for paths in groups.values() for path in paths], cache)
    found = {}
    for start in [one for one in starts if LONGER.get(one.kind, one.kind) != "scratch"]:
        known, behind = pretrainings.get(start.name), more[start.name]
        images = own.get(start.base if start.kind == "recipe" else start.name, [])
        # What a recipe learns from says nothing of weights that were there before it.
        of_it = [] if taken or not _takes_named(start, known) else named
        seen = [*images, *of_it, *(path for of in behind.images.values() for path in of)]
        found[start.name] = looks.judged(leak_of(start, known, images, len(of_it), behind), seen, "pretraining images")
    clean = LeakFacts(outcome="passed", words=f"none of {len(dataset.pool):,} labelled images is a test image")
    test = looks.judged(clean, dataset.pool, "labelled images")
    beside = looks.beside(dataset.pool)
    recordings = looks.recordings(dataset.pool, beside)
    said = [test.words] if test.outcome == "failed" else []
    said += [recordings.words] if beside else []
    said += [f"{name}: {leak.words}" for name, leak in found.items() if leak.outcome == "failed"]
    return Leaks(test, recordings, found, (*looks.notes([*dataset.pool, *dataset.test]), *said))


def _behind(start: Start, pretrainings: Mapping[str, PretrainingFacts], recipes: Mapping[str, RecipeStart]) -> Behind:
    """What a start brings in beside the images of its own pretraining."""
    if start.kind == "recipe":
        return behind(recipes[start.base].recipe.options)
    known = pretrainings.get(start.name)
    return behind(began_with(known)) if known else Behind({}, ())


def _own_images(
    starts: Sequence[Start], pretrainings: Mapping[str, PretrainingFacts], recipes: Mapping[str, RecipeStart]
) -> dict[str, list[str]]:
    """Start -> the images that it was, or will be, pretrained on, as far as they are there."""
    own = {
        start.name: pretraining_images(pretrainings.get(start.name)) for start in starts if start.kind == "checkpoint"
    }
    own |= {name: list(find_images(one.data, every=one.recipe.every)) for name, one in recipes.items()}
    return {name: images for name, images in own.items() if images}


class _Looks:
    """What test images and others look like.

    Args:
        test: Paths of the test images.
        others: Paths of all images that something was trained on.
        cache: File that keeps the thumbnails.
    """

    def __init__(self, test: Sequence[str], others: Iterable[str], cache: Path) -> None:
        unique = sorted(set(others) - set(test))
        some = [unique[at] for at in spread(len(unique), MOST)]
        self.looked = {*test, *some}
        if len(self.looked) > _MANY:
            said = f"looking for copies of test images among {len(some):,} images ..."
            make_console(stderr=True).print(said, markup=False)
        made = likeness.thumbnails([*test, *some], cache)
        self._values, self.unread = made.values, dict(made.unread)
        self._rows = {path: row for row, path in enumerate(made.paths)}
        self.test = self._of(test)

    def _of(self, paths: Iterable[str]) -> Thumbnails:
        known = tuple(path for path in dict.fromkeys(paths) if path in self._rows)
        return Thumbnails(known, self._values[[self._rows[path] for path in known]])

    def judged(self, leak: LeakFacts, paths: Sequence[str], what: str) -> LeakFacts:
        """`leak`, which tells what is known by content of the images at `paths`, and what they look like."""
        if pairs := likeness.look_alike(self.test, self._of(paths)):
            count = len({one for one, _ in pairs})
            words = f"{count:,} of {len(self.test.paths):,} test images look the same as {what}: {_shown(pairs)}"
            return LeakFacts(outcome="failed", words=f"{words}. They may be saved anew or resized: take one side out")
        left = len(set(paths) - self.looked)
        if left and leak.outcome == "passed":
            words = f"{leak.words} by content; by what they show, {len(set(paths)) - left:,} were looked at"
            return LeakFacts(outcome="not known", words=words)
        return leak

    def beside(self, paths: Sequence[str]) -> list[tuple[str, str]]:
        """(test image, other image) that look like frames beside each other, of the images at `paths`."""
        return likeness.beside_each_other(self.test, self._of(paths))

    def recordings(self, pool: Sequence[str], pairs: Sequence[tuple[str, str]]) -> LeakFacts:
        """What is known of frames of one recording among test images and those at `pool`, of which `pairs` are some."""
        if not any(map(likeness.numbered, self.test.paths)) or not any(map(likeness.numbered, pool)):
            return LeakFacts(outcome="not known", words="the names of the images have no running numbers")
        if not pairs:
            words = "no more test images look most like the labelled image beside them by number than by chance"
            return LeakFacts(outcome="passed", words=words)
        words = f"{len(pairs):,} of {len(self.test.paths):,} test images look most like the labelled image beside them "
        words += f"by number, as frames of one recording do: {_shown(pairs)}; on others the figures may be lower"
        return LeakFacts(outcome="not known", words=words)

    def notes(self, paths: Iterable[str]) -> tuple[str, ...]:
        """What is to be said of images that cannot be read."""
        told = [f"{path}: {self.unread[path]}" for path in dict.fromkeys(paths) if path in self.unread]
        return (f"{len(told):,} images cannot be read: {few(told)}",) if told else ()


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    return few([f"{one} and {other}" for one, other in pairs])


def leak_of(
    start: Start, known: PretrainingFacts | None, images: Sequence[str], named: int, more: Behind | None = None
) -> LeakFacts:
    """What is known of a start's pretraining where no test image was found by content.

    Args:
        start: The start.
        known: What its run folder tells.
        images: Of its pretraining, as far as they are there.
        named: How many images the user named as those of its pretraining.
        more: What else it brings in.
    """
    if start.kind == "recipe":
        leak = LeakFacts(outcome="passed", words=f"none of {len(images):,} images that it learns from is a test image")
    elif LONGER.get(start.kind, start.kind) != "checkpoint":
        return LeakFacts(outcome="not known", words="the images behind published weights are not known")
    else:
        leak = _of_named(known, named) if known is None or _takes_named(start, known) else of_run(known, images)
    if more is None or not (more.images or more.unknown):
        return leak
    told = [leak.words]
    if of := [name for name in more.images if not any(name in words for words in more.unknown)]:
        many = len({path for name in of for path in more.images[name]})
        told.append(f"nor is one of the {many:,} behind {' and '.join(of)}")
    outcome = "not known" if more.unknown else leak.outcome
    return LeakFacts(outcome=outcome, words="; ".join([*told, *more.unknown]))


def _takes_named(start: Start, known: PretrainingFacts | None) -> bool:
    """Whether ``unlabelled=`` can say what a start was pretrained on: nothing else does."""
    return LONGER.get(start.kind, start.kind) == "checkpoint" and not (known and known.data)


def _of_named(known: PretrainingFacts | None, named: int) -> LeakFacts:
    used = known.images or 0 if known else 0
    if not named:
        return LeakFacts(outcome="not known", words="its pretraining images are not known")
    if named < used:
        words = f"{named:,} of its {used:,} pretraining images were named by unlabelled=, and none of these is a test"
        return LeakFacts(outcome="not known", words=f"{words} image")
    words = f"none of {named:,} pretraining images, named by unlabelled=, is a test image"
    return LeakFacts(outcome="passed", words=words)


def on_both_sides(test: Sequence[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (test image, other image) of equal content, whatever the files are called.

    Sizes are compared first; only files whose size occurs on both sides are read.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in test:
        by_size[size_of(path)].append(path)
    by_size.pop(-1, None)
    suspects = [(size, path) for path in others if (size := size_of(path)) in by_size]
    hashes = {hash_of(path): path for size in {size for size, _ in suspects} for path in by_size[size]}
    hashes.pop("", None)
    return [(hashes[digest], path) for _, path in suspects if (digest := hash_of(path)) in hashes]


def refuse_leaks(test: Sequence[str], others: Mapping[str, Sequence[str]]) -> None:
    """Raise where test images are also among images that something was trained on.

    Args:
        test: Paths of the test images.
        others: What the images are for -> their paths.

    Raises:
        UserError: The same content is on both sides; with examples.
    """
    problems = []
    for what, paths in others.items():
        if pairs := on_both_sides(test, paths):
            shown = few([f"{one} = {other}" for one, other in pairs])
            many = f"{len(pairs)} of {len(paths)} files have the content of a test image: {shown}"
            hint = "a score on images that were trained on says nothing: take them out on one side"
            problems.append(UserError(many, where=what, hint=hint))
    if problems:
        raise UserError.several(problems)
