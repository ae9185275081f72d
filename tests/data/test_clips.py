from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.clips import Clip, class_names, evaluation_splits, group_of, groups_of, stable_hash
from asd_ray.errors import ConfigError

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


def of_attributes(counts: dict[str, int], machine_id: str = "00") -> list[Clip]:
    return [
        Clip(f"{machine_id}_{attributes}_{number}.wav", "fan", machine_id, "train", "normal", attributes=attributes)
        for attributes, count in counts.items()
        for number in range(count)
    ]


def test_attributes_make_classes_and_the_rare_ones_join_the_rest() -> None:
    clips = of_attributes({"spd_10": 12, "spd_20": 10, "spd_30": 9, "": 2})
    clips += of_attributes({"a/b": 3, "c": 2}, "01") + of_attributes({"": 1}, "02")
    clips += [Clip(f"t{n}.wav", "fan", "00", "test", "normal", attributes="spd_40") for n in range(50)]
    assert class_names(clips) == ["fan/00", "fan/01", "fan/02"]
    ten = ["fan/00", "fan/00/spd_10", "fan/00/spd_20", "fan/01", "fan/02"]
    assert class_names(clips, "attributes", 10) == ten
    assert class_names(clips, "attributes", 2) == [*ten[:3], "fan/00/spd_30", "fan/01/a/b", "fan/01/c", "fan/02"]


def test_a_rest_that_is_too_small_takes_up_the_rarest_attributes() -> None:
    clips = of_attributes({"spd_10": 30, "spd_20": 20, "spd_30": 21, "spd_40": 3})
    assert class_names(clips, "attributes", 10) == ["fan/00", "fan/00/spd_10", "fan/00/spd_30"]


@PROPERTY
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["00", "01"]), st.sampled_from(["", "a", "b", "c", "d"])), st.integers(1, 12)
    ),
    st.integers(1, 12),
)
def test_every_clip_has_a_class_that_is_large_enough(counts: dict[tuple[str, str], int], least: int) -> None:
    clips = [clip for (i, attributes), count in counts.items() for clip in of_attributes({attributes: count}, i)]
    if not any(attributes for _, attributes in counts):
        return
    names = class_names(clips, "attributes", least)
    assert names == sorted(set(names))
    members = Counter(
        name if name in names else clip.group for clip in clips for name in [f"{clip.group}/{clip.attributes}"]
    )
    assert set(members) == set(names)
    for name, count in members.items():
        assert count >= least or sum(group_of(other) == name for other in names) == 1
    for (i, attributes), count in counts.items():  # what is frequent joins others only to make a rest large enough
        if attributes and count >= least and f"fan/{i}/{attributes}" not in names:
            assert members[f"fan/{i}"] - count < least


def test_without_attributes_they_cannot_be_classes() -> None:
    clips = [*of_attributes({"": 3}), Clip("t", "fan", "00", "test", "normal", attributes="spd_10")]
    with pytest.raises(ConfigError, match=r"data\.classes: is attributes, but no training clip has any; .*to id"):
        class_names(clips, "attributes")


def test_the_group_of_a_class_is_machine_and_id() -> None:
    classes = ["fan/00", "fan/00/a", "fan/00/b/c", "fan/01/a", "fan/00-1/a"]
    assert [group_of(name) for name in classes] == ["fan/00", "fan/00", "fan/00", "fan/01", "fan/00-1"]
    assert groups_of(classes) == ["fan/00", "fan/01", "fan/00-1"]


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
