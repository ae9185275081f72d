from __future__ import annotations

import pytest

from asd_ray.config.study_file import parse_study
from asd_ray.errors import ConfigError


@pytest.mark.parametrize("data", [{"layout": "dcase2020", "root": "x"}, {"layout": "synthetic"}])
def test_names_without_attributes_cannot_make_classes(data: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"data: classes is attributes, but file names of layout {data['layout']}"):
        parse_study({"name": "s", "data": {**data, "classes": "attributes"}}, "f")
    assert parse_study({"name": "s", "data": data}, "f").data.classes == "id"


@pytest.mark.parametrize("layout", ["dcase2022", "folder", "synthetic"])
def test_names_that_may_have_attributes(layout: str) -> None:
    data = {"layout": layout, "root": "x", "classes": "attributes", "min_class_clips": 5}
    assert parse_study({"name": "s", "data": data}, "f").data.min_class_clips == 5
