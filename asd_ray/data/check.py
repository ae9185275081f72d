"""``data check``: list a data set's clips and problems.

By default it reads headers and first samples (to find digital silence); ``deep`` decodes everything. An error stops a
study or makes its result meaningless (training clips among the test clips). A study runs in spite of warnings
(missing or surplus clips, odd lengths).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from asd_ray.data import audio, layouts
from asd_ray.data.clips import Clip
from asd_ray.data.layouts import dcase2020, dcase2022
from asd_ray.data.problems import BadClip, Problem
from asd_ray.errors import AsdRayError

SILENT = 1e-4
"""Largest peak of a silent channel: −80 dBFS, three steps of 16 bits."""
CLIPPED = 1e-3
"""Smallest share of full-scale samples in a clipped recording."""
ODD_LENGTH = 0.1
"""Smallest relative difference from the machine's usual length that is reported."""

_PEEK = 2048
_SEVERITIES = ("error", "warning", "note")
_LABELS = ("normal", "anomaly", "unknown")


@dataclass(frozen=True)
class Report:
    """Result of a check.

    Attributes:
        root: the data set's folder.
        layout: given or recognised.
        deep: True if every recording was decoded.
        clips: usable clips.
        problems: errors first.
    """

    root: str
    layout: str
    deep: bool
    clips: list[Clip] = field(repr=False)
    problems: list[Problem] = field(repr=False)

    @property
    def ok(self) -> bool:
        """True if no problem would stop a study."""
        return all(problem.severity != "error" for problem in self.problems)

    @property
    def table(self) -> pd.DataFrame:
        """Number of clips: rows by machine, ID, split and domain; columns ``normal``, ``anomaly``, ``unknown``."""
        keys = ["machine", "id", "split", "domain"]
        counts = Counter((*(getattr(clip, key) for key in keys), clip.label) for clip in self.clips)
        rows = sorted({key[:-1] for key in counts}, key=lambda row: (row[0], row[1], row[2] != "train", row[3]))
        return pd.DataFrame(
            [[*row, *(counts[(*row, label)] for label in _LABELS)] for row in rows], columns=[*keys, *_LABELS]
        )

    @property
    def summary(self) -> pd.DataFrame:
        """Problems by severity and kind: their number, and the first one's path, finding and expectation."""
        groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
        for problem in self.problems:
            groups[problem.severity, problem.kind].append(problem)
        columns = ["severity", "kind", "count", "path", "what", "expected"]
        rows = [[*key, len(found), found[0].path, found[0].what, found[0].expected] for key, found in groups.items()]
        return pd.DataFrame(rows, columns=columns)

    def to_json(self) -> str:
        """The report without its list of clips, as JSON."""
        seconds = [clip.seconds for clip in self.clips]
        content: dict[str, Any] = {
            "root": self.root,
            "layout": self.layout,
            "deep": self.deep,
            "ok": self.ok,
            "clips": len(self.clips),
            "machines": sorted({clip.machine for clip in self.clips}),
            "sample_rates": dict(sorted(Counter(str(clip.sample_rate) for clip in self.clips).items())),
            "channels": dict(sorted(Counter(str(clip.channels) for clip in self.clips).items())),
            "seconds": {"total": sum(seconds), "min": min(seconds), "median": median(seconds), "max": max(seconds)}
            if seconds
            else None,
            "table": self.table.to_dict(orient="records"),
            "problems": [asdict(problem) for problem in self.problems],
        }
        return json.dumps(content, indent=2)


def check(
    root: str | Path,
    layout: str | None = None,
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
    machines: Sequence[str] | None = None,
) -> Report:
    """Check a data set.

    Args:
        root: its folder.
        layout: a registered layout; recognised from the file names if None.
        deep: decode every recording to find NaN, silence, clipping and duplicates.
        progress: called with (steps done, all steps); a clip takes two steps.
        machines: machine types to check; all by default.

    Raises:
        AsdRayError: the folder or machine is missing, holds no clip, or a side file is invalid.
    """
    if not Path(root).is_dir():
        raise AsdRayError(f"{root}: there is no such folder; expected a data set's folder.")
    layout = layout or layouts.detect(root)
    if layout is None:
        raise AsdRayError(f"{root}: found no wav, flac or ogg file; expected a data set's folder.")
    tick = progress or (lambda done, total: None)
    clips, problems = layouts.index(root, layout, machines, lambda done, total: tick(done, 2 * total))
    found = [*problems, *_headers(clips), *_coverage(clips), *_attributes(clips), *_published_counts(clips, layout)]
    contents = _decode_all if deep else _peek_all
    found += contents(Path(root), clips, lambda done: tick(len(clips) + done, 2 * len(clips)))
    found.sort(key=lambda problem: (_SEVERITIES.index(problem.severity), problem.kind, problem.path))
    return Report(str(root), layout, deep, clips, found)


def _headers(clips: Sequence[Clip]) -> Iterable[Problem]:
    """Find clips whose rate, channels or length differ from the others."""
    if not clips:
        return
    rate = Counter(clip.sample_rate for clip in clips).most_common(1)[0][0]
    channels = Counter(clip.channels for clip in clips).most_common(1)[0][0]
    usual = median(clip.seconds for clip in clips)
    if channels > 1:
        expected = "one, or data.channel to choose among them (0 by default)"
        yield Problem("note", "channels", ".", f"recordings of {channels} channels", expected)
    by_machine: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_machine[clip.machine].append(clip)
    for machine, members in by_machine.items():
        length = median(clip.seconds for clip in members)
        if abs(length - usual) > 0.01 * usual:
            what, expected = f"clips of {length:.4g} s", f"{usual:.4g} s as in the set, or a length in features.seconds"
            yield Problem("note", "length", machine, what, expected)
        for clip in members:
            if abs(clip.seconds - length) > ODD_LENGTH * length * (1 + 1e-9):
                expected = (
                    f"about {length:.4g} s like the machine's other clips; it is cut or repeated to features.seconds"
                )
                yield Problem("warning", "length", clip.path, f"{clip.seconds:.4g} s", expected)
            if clip.sample_rate != rate:
                expected = f"{rate:,} Hz like the others; it is resampled to features.sample_rate"
                yield Problem("warning", "rate", clip.path, f"{clip.sample_rate:,} Hz", expected)
            if clip.channels != channels:
                expected = f"{channels} like the others; data.channel chooses among several"
                yield Problem("warning", "channels", clip.path, f"{clip.channels} channels", expected)


def _coverage(clips: Sequence[Clip]) -> Iterable[Problem]:
    """Find IDs without clips to train or evaluate."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for clip in clips:
        counts[clip.machine, clip.id]["train" if clip.split == "train" else clip.label] += 1
    for (machine, machine_id), count in sorted(counts.items()):
        path = f"{machine} {machine_id}"
        if not count["train"]:
            yield Problem("error", "no training clips", path, "no training clips", "some for every ID with test clips")
        if count["unknown"]:
            what = f"{count['unknown']:,} test clips of unknown label"
            yield Problem(
                "warning", "labels", path, what, "labels in test_labels.csv; without them, the clips are not evaluated"
            )
        for label, word in (("normal", "normal"), ("anomaly", "anomalous")):
            if not count[label] and count["normal"] + count["anomaly"]:
                expected = "normal and anomalous test clips of every ID; otherwise it has no AUC"
                yield Problem("warning", f"no {label} test clips", path, f"no {word} test clips", expected)
        if not count["normal"] + count["anomaly"] + count["unknown"]:
            yield Problem("note", "no test clips", path, "no test clips", "some; otherwise the ID is only trained on")
    if not any(count["normal"] and count["anomaly"] for count in counts.values()):
        what = "no ID with normal and anomalous test clips"
        yield Problem("error", "nothing to evaluate", ".", what, "at least one; a study maximises its AUC")


def _attributes(clips: Sequence[Clip]) -> Iterable[Problem]:
    """Count the attributes of IDs that have several."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for clip in clips:
        if clip.split == "train" and clip.attributes:
            counts[clip.machine, clip.id][clip.attributes] += 1
    for (machine, machine_id), count in sorted(counts.items()):
        if len(count) > 1:
            what = f"{count.total()} training clips of {len(count)} different attributes"
            expected = "data.classes: attributes to make them classes"
            yield Problem("note", "attributes", f"{machine} {machine_id}", what, expected)


def _published_counts(clips: Sequence[Clip], layout: str) -> Iterable[Problem]:
    """Compare the numbers of clips with the published ones."""
    clips = [clip for clip in clips if clip.part != "none"]
    if layout == "dcase2020":
        found: Counter[tuple[str, str, str]] = Counter((clip.machine, clip.part, clip.split) for clip in clips)
        for machine in sorted({clip.machine for clip in clips}):
            for (part, split), number in dcase2020.COUNTS[machine].items():
                yield from _count(f"{machine}, {dcase2020.RELEASES[part, split]}", found[machine, part, split], number)
    elif layout == "dcase2022" and {clip.machine for clip in clips} <= set(dcase2022.MACHINES):
        if any(clip.path.split("/")[1] != clip.split for clip in clips):
            return  # source_test/ and target_test/: this is 2021, with other numbers
        sections: Counter[tuple[str, str, str]] = Counter((clip.machine, clip.id, clip.split) for clip in clips)
        for machine, section in sorted({(clip.machine, clip.id) for clip in clips}):
            for split, number in dcase2022.COUNTS.items():
                yield from _count(f"{machine}, section {section}, {split}", sections[machine, section, split], number)


def _count(what: str, found: int, published: int) -> Iterable[Problem]:
    if found != published:
        expected = f"{published:,} as published; download what is missing if the whole set is wanted"
        yield Problem("warning" if found else "note", "count", what, f"{found:,} clips", expected)


def _peek_all(root: Path, clips: Sequence[Clip], tick: Callable[[int], None]) -> list[Problem]:
    """Find silent recordings; decode whole only those that start with zeros."""
    problems = []
    for done, clip in enumerate(clips, 1):
        try:
            samples, _ = audio.decode(root / clip.path, _PEEK)
            if not samples.any():
                samples, _ = audio.decode(root / clip.path)
                problems += _silence(clip, samples)
        except BadClip as error:
            problems.append(error.problem.at(clip.path))
        tick(done)
    return problems


def _decode_all(root: Path, clips: Sequence[Clip], tick: Callable[[int], None]) -> list[Problem]:
    """Find the problems that need every sample, and clips with equal samples."""
    problems: list[Problem] = []
    same: dict[bytes, list[Clip]] = defaultdict(list)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # In chunks: map() submits every clip at once, and an interrupt would wait for all of them.
        for start in range(0, len(clips), 256):
            members = clips[start : start + 256]
            for done, (clip, (found, digest)) in enumerate(
                zip(members, pool.map(lambda clip: _inspect(root, clip), members), strict=True), start + 1
            ):
                problems += found
                if digest is not None:
                    same[digest].append(clip)
                tick(done)
    for group in same.values():
        problems += _duplicates(group)
    return problems


def _inspect(root: Path, clip: Clip) -> tuple[list[Problem], bytes | None]:
    """Find a clip's problems; hash its samples if they are usable."""
    try:
        samples, rate = audio.decode(root / clip.path)
    except BadClip as error:
        return [error.problem.at(clip.path)], None
    if not np.isfinite(samples).all():
        what = f"{np.count_nonzero(~np.isfinite(samples)):,} NaN or infinite samples"
        return [Problem("error", "not finite", clip.path, what, "finite numbers; export it again")], None
    if silent := _silence(clip, samples):
        return silent, None
    problems = []
    clipped = np.count_nonzero(np.abs(samples) >= 0.9999) / samples.size
    if clipped > CLIPPED:
        what = f"{clipped:.1%} of the samples at full scale (clipping)"
        problems.append(Problem("warning", "clipping", clip.path, what, "a recording at a lower gain"))
    kind = f"{rate}/{samples.shape[1]}".encode()
    return problems, hashlib.blake2b(samples.tobytes(), digest_size=16, salt=kind[:16]).digest()


def _silence(clip: Clip, samples: np.ndarray) -> list[Problem]:
    """Find channels that are zero or another constant."""
    peaks = (samples.max(axis=0) - samples.min(axis=0)) / 2
    dead = np.flatnonzero(peaks <= SILENT)
    if not len(dead):
        return []
    constant = bool(np.abs(samples[:, dead]).max() > 2 * SILENT)
    where = "" if len(dead) == len(peaks) else f" in channel {', '.join(map(str, dead))}"
    what = ("constant" if constant else "silent") + where
    return [Problem("warning", "silent", clip.path, what, "sound; record it again or leave it out")]


def _duplicates(group: Sequence[Clip]) -> Iterable[Problem]:
    """Describe the problems of clips with the same samples."""
    first, *others = sorted(group, key=lambda clip: (clip.split != "train", clip.path))
    for clip in others:
        what = f"the same samples as {first.path}"
        if clip.split != first.split:
            expected = "different clips for training and test: a method would be tested on its training clips"
            yield Problem("error", "leakage", clip.path, what, expected)
        elif clip.label != first.label:
            yield Problem("error", "contradiction", clip.path, f"{what}, with another label", "one label")
        else:
            yield Problem("warning", "duplicate", clip.path, what, "every recording once")
