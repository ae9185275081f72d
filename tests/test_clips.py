from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.clips import Clip, class_names, evaluation_splits, stable_hash

PROPERTY = settings(deadline=None, max_examples=100)


@st.composite
def clip_sets(draw: st.DrawFn, parts: tuple[str, ...] = ("dev", "eval", "none")) -> list[Clip]:
    strata = st.fixed_dictionaries(
        {
            "machine": st.sampled_from(["fan", "ToyCar"]),
            "id": st.sampled_from(["00", "01"]),
            "split": st.sampled_from(["train", "test"]),
            "label": st.sampled_from(["normal", "anomaly", "unknown"]),
            "domain": st.sampled_from(["none", "source"]),
            "part": st.sampled_from(parts),
        }
    )
    return [Clip(path=f"{number}.wav", **fields) for number, fields in enumerate(draw(st.lists(strata, max_size=60)))]


def stratum(clip: Clip) -> tuple[str, str, str, str]:
    return clip.machine, clip.id, clip.domain, clip.label


@PROPERTY
@given(clip_sets())
def test_exactly_the_labelled_test_clips_are_split(clips: list[Clip]) -> None:
    expected = {clip.path for clip in clips if clip.split == "test" and clip.label != "unknown"}
    assert evaluation_splits(clips).keys() == expected


@PROPERTY
@given(clip_sets(parts=("none",)))
def test_every_stratum_is_halved(clips: list[Clip]) -> None:
    splits = evaluation_splits(clips)
    by_path = {clip.path: clip for clip in clips}
    counts = Counter((stratum(by_path[path]), side) for path, side in splits.items())
    for key in {key for key, _ in counts}:
        assert abs(counts[key, "select"] - counts[key, "holdout"]) <= 1


@PROPERTY
@given(clip_sets(parts=("none",)), st.randoms(use_true_random=False))
def test_the_order_of_the_clips_does_not_matter(clips: list[Clip], random: object) -> None:
    shuffled = list(clips)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert evaluation_splits(shuffled) == evaluation_splits(clips)


@PROPERTY
@given(clip_sets(parts=("dev", "eval")))
def test_a_published_division_is_kept(clips: list[Clip]) -> None:
    labelled = [clip for clip in clips if clip.split == "test" and clip.label != "unknown"]
    if {clip.part for clip in labelled} != {"dev", "eval"}:
        return
    splits = evaluation_splits(clips)
    assert all(splits[clip.path] == ("holdout" if clip.part == "eval" else "select") for clip in labelled)


def test_training_clips_or_hidden_labels_of_the_evaluation_part_do_not_make_a_division() -> None:
    test = [Clip(f"t{n}.wav", "fan", "00", "test", "anomaly" if n % 2 else "normal", part="dev") for n in range(8)]
    others = [
        Clip("a.wav", "fan", "01", "train", "normal", part="eval"),
        Clip("b.wav", "fan", "01", "test", "unknown", part="eval"),
    ]
    assert Counter(evaluation_splits([*test, *others]).values()) == {"select": 4, "holdout": 4}


def test_a_single_clip_of_each_label_stays_together() -> None:
    for number in range(50):
        pair = [Clip(f"{label}.wav", "fan", str(number), "test", label) for label in ("normal", "anomaly")]  # type: ignore[arg-type]
        assert len(set(evaluation_splits(pair).values())) == 1


def test_single_pairs_are_dealt_to_both_sides() -> None:
    clips = [
        Clip(f"{number}_{label}.wav", "fan", str(number), "test", label)  # type: ignore[arg-type]
        for number in range(200)
        for label in ("normal", "anomaly")
    ]
    selected = Counter(evaluation_splits(clips).values())["select"]
    assert 140 < selected < 260  # four standard deviations of 200 fair coins, two clips each


def test_adding_another_id_changes_nothing_for_the_first() -> None:
    first = [Clip(f"{n}.wav", "fan", "00", "test", "anomaly" if n % 3 else "normal") for n in range(20)]
    more = [replace(clip, path=f"x{clip.path}", id="02") for clip in first]
    splits = evaluation_splits(first)
    assert {path: side for path, side in evaluation_splits([*more, *first]).items() if path in splits} == splits


def test_class_names_are_ordered_and_of_training_clips_only() -> None:
    clips = [
        Clip("a", "valve", "00", "train", "normal"),
        Clip("b", "fan", "02", "train", "normal"),
        Clip("c", "fan", "00", "train", "normal"),
        Clip("d", "fan", "00", "train", "normal"),
        Clip("e", "pump", "00", "test", "anomaly"),
    ]
    assert class_names(clips) == ["fan/00", "fan/02", "valve/00"]


def test_seconds_need_a_header() -> None:
    clip = Clip("a", "fan", "00", "train", "normal")
    assert clip.seconds == 0.0
    assert replace(clip, sample_rate=16000, frames=176000).seconds == 11.0


def test_every_pair_of_both_labels_leaves_an_auc_on_both_sides() -> None:
    clips = [Clip(f"{n}.wav", "fan", "00", "test", "anomaly" if n % 2 else "normal") for n in range(4)]
    splits = evaluation_splits(clips)
    assert Counter((clip.label, splits[clip.path]) for clip in clips) == {
        (label, side): 1 for label in ("normal", "anomaly") for side in ("select", "holdout")
    }


def test_the_hash_is_the_same_everywhere() -> None:
    assert stable_hash("clip", "fan/test/a.wav", 3) == 7146076429128220953
    assert stable_hash("ab", "c") != stable_hash("a", "bc")
