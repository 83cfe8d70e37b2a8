"""What must hold for a comparison to be fair: each claim with its outcome and the facts that it is drawn from.

A report says nothing about fairness but these checks. What no fact tells is not known, and is said to be so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from headstart.comparison.records import CellResult, Check, Figures, RateChoice, Results
from headstart.comparison.start_records import CheckOutcome
from headstart.errors import few

_NAMED = 3
"""How many of several complaints a check tells."""


def make_checks(results: Results) -> tuple[Check, ...]:
    """Every check of a comparison, from the facts of ``results.json`` alone."""
    return tuple(
        make(results)
        for make in (
            *(_complete, _labelled, _test_leak, _pretraining_leaks, _recordings, _lists, _used, _epochs, _settings),
            *(_rates, _network),
            *(_arrived, _last_epoch, _seeds, _varied, _device, _versions),
        )
    )


def _check(key: str, claim: str, wrong: Sequence[str], known: bool, evidence: str) -> Check:
    """Failed where anything is wrong; else passed or not known, with the evidence for that."""
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        return Check(key=key, claim=claim, outcome="failed", evidence="; ".join(wrong[:_NAMED]) + more)
    return Check(key=key, claim=claim, outcome="passed" if known else "not known", evidence=evidence)


_NOTHING = "no training is done"


def lacking_of(results: Results) -> tuple[list[tuple[str, str, int]], int]:
    """Start, budget and seed of the trainings that failed or were not begun, and how many there are to be in all."""
    starts, budgets, seeds = results.starts, results.budgets, results.settings.seeds
    have = {(cell.start, cell.budget, cell.seed) for cell in results.finished()}
    wanted = [(start.name, budget.name, seed) for seed in seeds for budget in budgets for start in starts]
    return [one for one in wanted if one not in have], len(wanted)


def _complete(results: Results) -> Check:
    starts, budgets, seeds = results.starts, results.budgets, results.settings.seeds
    lacking, wanted = lacking_of(results)
    named = ", ".join(f"{start} at {budget}, seed {seed}" for start, budget, seed in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    wrong = [f"{len(lacking)} of {wanted} trainings failed or are missing: {named}{more}"] if lacking else []
    evidence = f"{wanted} trainings: {len(starts)} starts, {len(budgets)} label budgets, {len(seeds)} seeds"
    return _check("complete", "Every training is done", wrong, True, evidence)


def _labelled(results: Results) -> Check:
    counts = {sum(one.objects for one in cell.measured.class_scores) for cell in results.finished()} - {0}
    images, all_images = results.data.labelled_test_images, results.data.test_images
    wrong = ["no test image has a labelled object: nothing can be measured"] if images == 0 else []
    if not counts and results.finished() and all(cell.measured.map50 == 0 for cell in results.finished()):
        wrong = wrong or ["no training counted a labelled object, and every figure is 0: nothing can be measured"]
    if len(counts) > 1:
        wrong.append(f"the trainings were measured on {_and(sorted(counts))} objects")
    evidence = f"{max(counts):,} objects in {all_images:,} test images" if counts else "no training counted them"
    claim = "The test images have labelled objects, the same for every training"
    return _check("labelled", claim, wrong, bool(counts), evidence if results.finished() else _NOTHING)


def _test_leak(results: Results) -> Check:
    leak = results.data.leak
    wrong = [leak.words] if leak.outcome == "failed" else []
    claim = "No test image is among the labelled images, by content and by what it shows"
    return _check("test leak", claim, wrong, leak.outcome == "passed", leak.words)


def _pretraining_leaks(results: Results) -> Check:
    told: dict[CheckOutcome, dict[str, list[str]]] = {"failed": {}, "not known": {}, "passed": {}}
    for start in results.starts:
        if start.leak:
            told[start.leak.outcome].setdefault(start.leak.words, []).append(start.name)
    said = {outcome: [f"{', '.join(names)}: {words}" for words, names in of.items()] for outcome, of in told.items()}
    known = not said["not known"]
    evidence = "; ".join([*said["not known"], *said["passed"]]) or "no start was pretrained"
    claim = "No test image is among the images that a start was pretrained on, by content and by what it shows"
    return _check("pretraining leak", claim, said["failed"], known, evidence)


def _recordings(results: Results) -> Check:
    known = results.data.recordings
    claim = "Test images are not frames beside labelled images in one recording"
    passed = known is not None and known.outcome == "passed"
    return _check("recordings", claim, [], passed, known.words if known else "nobody looked")


def _groups(results: Results, *keys: str) -> dict[tuple[Any, ...], list[CellResult]]:
    found: dict[tuple[Any, ...], list[CellResult]] = defaultdict(list)
    for cell in results.finished():
        found[tuple(getattr(cell, key) for key in keys)].append(cell)
    return found


def _equal(
    results: Results, keys: Sequence[str], value: Callable[[CellResult], Any], wrong: str
) -> tuple[list[str], set[Any]]:
    """A complaint for each group of trainings that do not agree in `value`, and all values that there are."""
    complaints = []
    for key, group in _groups(results, *keys).items():
        if len({repr(value(cell)) for cell in group}) > 1:
            where = ", ".join(
                f"{name} {one}" if name == "seed" else f"at {one}" for name, one in zip(keys, key, strict=True)
            )
            complaints.append(f"{where}, {wrong}" if where else wrong)
    return complaints, {repr(value(cell)) for cell in results.finished()}


def _lists(results: Results) -> Check:
    wrong, values = _equal(
        results, ("budget", "seed"), lambda c: c.labels_sha256, "the starts were trained on different labelled images"
    )
    compared = len(_groups(results, "budget", "seed"))
    evidence = f"equal sha256 of the lists at each of {compared} budgets and seeds" if values else _NOTHING
    claim = "At each budget and seed, every start has the same labelled images"
    return _check("lists", claim, wrong, bool(values), evidence)


def _used(results: Results) -> Check:
    """Ultralytics leaves out images that are gone or damaged, and labels that it rejects, with a line in its log."""
    extra = (results.settings.model_extra or {}).get("extra") or {}
    chosen = [name for name in ("fraction", "classes") if name in extra]
    wrong, done = [], results.finished()
    for cell in done:
        read, meant = cell.measured.used, cell.meant
        if read is None or meant is None or chosen:
            continue
        for part, one, other in (("train", read.train, meant.train), ("test", read.test, meant.test)):
            if one != other:
                wrong.append(f"{cell.shown}, {part}: {one.shown} were used, of {other.shown}; see its train.log")
    more, _ = _equal(results, ("budget", "seed"), lambda c: c.measured.used, "the starts read different data")
    known = bool(done) and all(cell.measured.used for cell in done) and not chosen
    sizes = {cell.measured.used.train.shown for cell in done if cell.measured.used}
    tests = {cell.measured.used.test.shown for cell in done if cell.measured.used}
    evidence = f"to train on: {'; '.join(sorted(sizes))}. To measure on: {'; '.join(sorted(tests))}"
    missing = f"extra.{chosen[0]} leaves out some" if chosen else "the trainings did not write down what they read"
    claim = "Every training read all of its images and their objects"
    return _check("used", claim, wrong + more, known, evidence if known else missing if done else _NOTHING)


def _epochs(results: Results) -> Check:
    longer, done = [start.name for start in results.starts if start.longer], _finetuned(results)
    as_is = [start.name for start in results.starts if start.as_is]
    wrong = [
        f"{cell.shown}: was fine-tuned, and is to be measured as it is"
        for cell in results.finished()
        if cell.start in as_is and cell.epochs
    ]
    for name in (None, *longer):
        own = [c for c in done if (c.start == name if name else c.start not in longer)]
        for budget in dict.fromkeys(cell.budget for cell in own):
            if len({(cell.epochs, cell.images) for cell in own if cell.budget == budget}) > 1:
                wrong.append(f"at {budget}, the trainings have different numbers of epochs or images")
    each = {c.budget: f"{c.epochs} epochs of {c.images:,} images" for c in done if c.start not in longer}
    told = [f"{c.start} {c.budget}: {c.epochs} epochs" for c in done if c.start in longer]
    told += [f"{name}: not fine-tuned" for name in as_is]
    evidence = "; ".join([", ".join(each.values()), *dict.fromkeys(told)]).strip("; ") or _NOTHING
    claim = "At each budget, every training is as long as the others"
    claim += f", but {_and(longer)}, meant to be longer" if longer else ""
    claim += f", and {_and(as_is)} measured without any" if as_is else ""
    return _check("epochs", claim, wrong, bool(results.finished()), evidence)


def _finetuned(results: Results) -> list[CellResult]:
    """The trainings that are done, without what is measured as it is: nothing is trained there."""
    as_is = {start.name for start in results.starts if start.as_is}
    return [cell for cell in results.finished() if cell.start not in as_is]


def _settings(results: Results) -> Check:
    wrong, values = _equal(results, (), lambda c: c.settings_sha256, "the trainings were given different settings")
    s = results.settings
    known = bool(values) and values != {"''"}
    evidence = f"{s.optimizer}, {s.imgsz} px, batch {s.batch}; equal sha256 of what each training was given"
    missing = "the trainings did not write down what they were given" if values else _NOTHING
    claim = "Every training is given the same image size, batch, augmentation and optimizer"
    return _check("settings", claim, wrong, known, evidence if known else missing)


def _rates(results: Results) -> Check:
    claim = "Every start has its learning rate from the same list, chosen without the test images"
    own = results.settings.start_lr
    searched = [one for one in results.rates if one.start not in own]
    cells = [cell for cell in _finetuned(results) if cell.start not in own]
    tried = {tuple(one.validation_map50_95) for one in searched}
    wrong = ["the starts tried different lists of learning rates"] if len(tried) > 1 else []
    if any(tried):
        chosen = {(one.start, one.budget): one.lr for one in searched}
        wrong += [_other_rate(cell) for cell in cells if chosen.get((cell.start, cell.budget)) != cell.lr]
        rates, lost = ", ".join(next(iter(tried))), _failed_rates(searched)
        known, evidence = not lost, f"the best of {rates} on a validation part of the labelled images, at each budget"
        evidence += f"; but not what these would have come to, which failed: {few(lost)}" if lost else ""
    else:
        claim = "Every start has the same learning rate"
        used = sorted({cell.lr for cell in cells})
        wrong += [f"the trainings used the rates {_and([f'{rate:g}' for rate in used])}"] if len(used) > 1 else []
        nothing = "nothing was fine-tuned" if results.finished() else _NOTHING
        known, evidence = bool(used), f"{used[0]:g} for all" if used else nothing
    wrong += [_other_rate(cell) for cell in _finetuned(results) if own.get(cell.start, cell.lr) != cell.lr]
    if own:
        given = _and([f"{name} has {rate:g}" for name, rate in own.items()])
        evidence += f"; but {given}, given in start_lr: where these were chosen is not known here"
    return _check("rates", claim, wrong, known and not own, evidence)


def _failed_rates(searched: Sequence[RateChoice]) -> list[str]:
    """Trainings of a search that failed, while a higher rate worked: they will not have diverged."""
    return [
        f"{one.start} at {one.budget} with {rate}"
        for one in searched
        for worked in [[float(rate) for rate, score in one.validation_map50_95.items() if score is not None]]
        for rate, score in one.validation_map50_95.items()
        if score is None and float(rate) < max(worked, default=0.0)
    ]


def _other_rate(cell: CellResult) -> str:
    return f"{cell.shown}: {cell.lr:g} was used, not the rate that was chosen"


def _network(results: Results) -> Check:
    wrong, values = _equal(results, (), lambda c: c.measured.parameters, "the networks are not of one size")
    evidence = f"{int(min(values)):,} weights in every training" if values else _NOTHING
    return _check("network", "Every start is trained in a network of the same size", wrong, bool(values), evidence)


def _arrived(results: Results) -> Check:
    wrong, done = [], results.finished()
    for cell in done:
        found = cell.measured.arrived
        least = min(found.model, found.ema)
        if least < found.tensors:
            wrong.append(
                f"{cell.shown}: {found.tensors - least} of {found.tensors} tensors of the start did not arrive"
            )
        elif found.tensors and cell.measured.initial_sha256 != cell.start_sha256:
            wrong.append(f"{cell.shown}: the training began with other weights than those of its start")
    known = bool(done) and all(cell.measured.arrived.tensors for cell in done)
    counts = _and(sorted({cell.measured.arrived.tensors for cell in done}))
    evidence = f"{counts} tensors bitwise equal in the trainer's model and EMA before the first step"
    claim = "The start arrived whole in every training"
    return _check("arrived", claim, wrong, known, evidence if known else _NOTHING if not done else "no tensors counted")


def _last_epoch(results: Results) -> Check:
    wrong = []
    for cell in results.finished():
        last = cell.measured.curve[-1]
        if last.epoch != cell.epochs or last.map50_95 != cell.measured.map50_95:
            wrong.append(f"{cell.shown}: the figures are not those of epoch {cell.epochs}")
    known = bool(results.finished())
    evidence = "no epoch is chosen by its score on the test images" if known else _NOTHING
    if stopped := [cell for cell in results.finished() if cell.measured.breaks]:
        first = f"{stopped[0].shown}, after epoch {_and(stopped[0].measured.breaks)}"
        more = f" and {len(stopped) - 1} more" if len(stopped) > 1 else ""
        evidence += f"; stopped and continued, with the images in another order from there on: {first}{more}"
    return _check("last epoch", "Every figure is that of the last epoch", wrong, known, evidence)


def _seeds(results: Results) -> Check:
    """Two seeds that gave the very same figures: the seed reached nothing (ultralytics #6820)."""
    wrong, groups = [], _groups(results, "start", "budget")
    given = _given(results)
    groups = {key: group for key, group in groups.items() if key[0] not in given}
    for (start, budget), group in groups.items():
        for at, one in enumerate(group):
            twins = [other for other in group[:at] if _same_run(one.measured, other.measured)]
            wrong += [
                f"seeds {other.seed} and {one.seed} of {start} at {budget} gave the same figures in every epoch: the "
                "seed changed nothing"
                for other in twins
            ]
    known = any(len(group) > 1 for group in groups.values())
    evidence = "no two seeds of a start gave the same figures" if known else _one_seed(results, "no start was")
    evidence = evidence if groups else "nothing was made of a seed" if results.finished() else _NOTHING
    return _check("seeds", "Every seed makes another training", wrong, known, evidence)


def _one_seed(results: Results, what: str) -> str:
    """Why seeds cannot be compared, where no training is, or none of what was."""
    if not results.finished():
        return _NOTHING
    return "there is one seed" if len(results.settings.seeds) == 1 else f"{what} trained with two seeds"


def _given(results: Results) -> set[str]:
    """Starts that no seed changes: files that are measured as they are."""
    return {start.name for start in results.starts if start.fixed}


def _same_run(one: Figures, other: Figures) -> bool:
    if not one.curve[-1].epoch:  # one row of a few figures: what was made of the seed are the weights
        return one.initial_sha256 == other.initial_sha256
    # Not the scores alone: of few objects, and in the first epochs, other trainings come to the same ones.
    return one.rows_sha256 == other.rows_sha256


def _varied(results: Results) -> Check:
    """The same difference in every seed, other than none: no spread to judge it by.

    Of trainings that differ it says that the test images show too few objects to tell them apart.
    """
    given = _given(results)
    several = [one for one in results.differences if len(one.seeds) > 1 and not {one.start, one.reference} & given]
    same = [
        f"{one.start} and {one.reference} at {one.budget} differ by the same {100 * one.map50_95.mean:.2f} points in "
        f"all {len(one.seeds)} seeds, which tells nothing of chance"
        for one in several
        if len(set(one.map50_95.differences)) == 1 and one.map50_95.mean
    ]
    evidence = "no difference is the same in all seeds" if several else _no_spread(results)
    claim = "Every difference varies with the seed"
    return _check("spread", claim, [], bool(several) and not same, few(same) if same else evidence)


def _no_spread(results: Results) -> str:
    """Why no difference has several seeds to vary with."""
    if len(results.starts) == 1:
        return "there is one start"
    if any(len(one.seeds) > 1 for one in results.differences):
        return "no seed changes what is measured as it is"
    return _one_seed(results, "no start and its reference were")


def _device(results: Results) -> Check:
    wrong, values = _equal(results, (), lambda c: c.measured.device, "some trainings ran on a GPU and some did not")
    evidence = " and ".join(sorted({cell.measured.device for cell in results.finished()})) or _NOTHING
    return _check("device", "Every training ran on the same kind of device", wrong, bool(values), evidence)


def _versions(results: Results) -> Check:
    done = results.finished()
    wrong, _ = _equal(results, (), lambda c: sorted(c.measured.versions.items()), "different versions trained")
    told = sorted({f"{name} {version}" for cell in done for name, version in cell.measured.versions.items()})
    wrong = [f"the trainings ran with different versions: {', '.join(told)}"] if wrong else []
    known = bool(done) and all(cell.measured.versions for cell in done)
    evidence = ", ".join(told) or (_NOTHING if not done else "the trainings did not write their versions down")
    return _check("versions", "Every training ran with the same versions", wrong, known, evidence)


def _and(values: Sequence[Any]) -> str:
    return " and ".join(str(value) for value in values)
