"""Optuna's storage of a study: a file in its folder, or a database that many studies share (``search.storage``)."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from asd_ray.config import StudyConfig
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import write_text
from asd_ray.study.folder import StudyFolder

NAME_FILE = "optuna_study"
"""File of the study folder that holds the study's name in a shared storage."""


def open_storage(study: StudyConfig, folder: StudyFolder, *, new: bool) -> tuple[optuna.storages.RDBStorage, str]:
    """The storage, made if need be, and the study's name in it.

    In the folder's own file a study has its own name; in a shared storage the name has a random suffix, which the
    folder keeps.

    Args:
        study: the study.
        folder: of the study.
        new: no trial of it has started: what the storage holds of it is of no use, and is deleted.

    Raises:
        ConfigError: the URL needs an environment variable that is not set.
        AsdRayError: the storage cannot be opened, or the study in it is another folder's.
    """
    shared = study.search.storage
    name = _shared_name(study, folder) if shared else study.name
    storage = _connect(shared) if shared else optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'optuna.db'}")
    there = {found.study_name: found for found in storage.get_all_studies()}.get(name)
    if there is not None:
        owner = Path(there.user_attrs.get("study_folder", folder.path))
        if shared and owner != folder.path and _stored_name(owner) == name:
            raise AsdRayError(
                f"{folder.path / NAME_FILE}: names the study {name} of search.storage, which belongs to {owner}; two "
                f"folders must not write to one study. If this folder is a copy, delete that file."
            )
        if new:
            storage.delete_study(there._study_id)
    return storage, name


def _shared_name(study: StudyConfig, folder: StudyFolder) -> str:
    if not _stored_name(folder.path):
        write_text(folder.path / NAME_FILE, f"{study.name}-{secrets.token_hex(4)}\n")
    return _stored_name(folder.path)


def _stored_name(folder: Path) -> str:
    path = folder / NAME_FILE
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _connect(url: str) -> optuna.storages.RDBStorage:
    secret = {name: os.environ.get(name) for name in re.findall(r"\$\{(\w+)\}", url)}
    for name, value in secret.items():
        if value is None:
            raise ConfigError(f"search.storage: needs the environment variable {name}, which is not set here.")
        url = url.replace(f"${{{name}}}", value)
    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise AsdRayError(f"search.storage: the package {driver}, which talks to this database, is missing.") from None
    except (SQLAlchemyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        for name, value in secret.items():
            reason = reason.replace(value, f"${{{name}}}") if value else reason
        raise AsdRayError(f"search.storage: the database cannot be opened ({reason[:300]}).") from None
