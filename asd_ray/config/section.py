"""What all parts of a study file have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the study file: immutable, and no key but the declared ones."""

    # Many processes import all methods' settings and read those of one: validators are built when they are needed.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
