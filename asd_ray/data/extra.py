"""Recordings of anything, for pre-training alone (``data.extra_pretraining``): AudioSet, other machines, a street."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.data.folder import files
from asd_ray.data.problems import BadClip
from asd_ray.errors import AsdRayError

MACHINE = "extra"
_LOG = logging.getLogger("asd_ray")


def scan(folders: Sequence[str], skip_bad: bool = False) -> list[Clip]:
    """One clip of split ``extra`` per audio file below the folders, ordered by path.

    Args:
        folders: of any depth.
        skip_bad: leave out recordings that cannot be read, with a warning, instead of raising.

    Raises:
        AsdRayError: no such folder, no audio in it, or a recording that cannot be read.
    """
    clips: dict[str, Clip] = {}
    for given in folders:
        folder = Path(given).expanduser().resolve()
        if not folder.is_dir():
            raise AsdRayError(f"data.extra_pretraining: {given}: there is no such folder.")
        names = sorted(name for name in files(folder) if audio.is_audio(name))
        if not names:
            wanted = ", ".join(audio.SUFFIXES)
            raise AsdRayError(f"data.extra_pretraining: {given}: there is no audio in it; expected files {wanted}.")
        for name in names:
            path = os.path.join(folder, name)
            try:
                header = audio.read_header(path)
            except BadClip as error:
                if not skip_bad:
                    raise AsdRayError(f"{error} Set data.skip_bad to leave such recordings out.") from None
                _LOG.warning("left out: %s", error)
                continue
            clips[path] = Clip(path, MACHINE, folder.name, "extra", "unknown", **header._asdict())
    return sorted(clips.values(), key=lambda clip: clip.path)
