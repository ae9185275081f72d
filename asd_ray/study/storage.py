"""Open a study's Optuna storage: a file in the study folder, or a database that several studies share."""

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
from asd_ray.study.objectives import MINIMISED

NAME_FILE = "optuna_study"
"""File in the study folder with the study's name in a shared storage."""


def open_study(study: StudyConfig, folder: StudyFolder, *, new: bool) -> optuna.Study:
    """Open the study in Optuna's storage, or create it.

    In the folder's own file the study has its own name. In a shared storage the name gets a random suffix, which the
    folder remembers.

    Args:
        study: the study.
        folder: the study folder.
        new: no trial has started yet; whatever the storage holds under the name is deleted.

    Raises:
        ConfigError: the URL needs an environment variable that is not set.
        AsdRayError: the storage cannot be opened, or the study in it belongs to another folder.
    """
    shared = study.search.storage
    name = _shared_name(study, folder) if shared else study.name
    storage = _connect(shared) if shared else optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'optuna.db'}")
    if name in optuna.get_all_study_names(storage):
        stored = optuna.load_study(study_name=name, storage=storage)
        owner = Path(stored.user_attrs.get("study_folder", folder.path))
        if shared and owner != folder.path and _stored_name(owner) == name:
            raise AsdRayError(
                f"{folder.path / NAME_FILE}: names the study {name} of search.storage, which belongs to {owner}; two "
                f"folders must not write to one study. If this folder is a copy, delete that file."
            )
        if new:
            optuna.delete_study(study_name=name, storage=storage)
    kinds = study.evaluation.objectives
    opened = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        directions=["minimize" if kind in MINIMISED else "maximize" for kind in kinds],
    )
    opened.set_metric_names(list(kinds))
    opened.set_user_attr("study_folder", str(folder.path))
    return opened


def _shared_name(study: StudyConfig, folder: StudyFolder) -> str:
    if not _stored_name(folder.path):
        write_text(folder.path / NAME_FILE, f"{study.name}-{secrets.token_hex(4)}\n")
    return _stored_name(folder.path)


def _stored_name(folder: Path) -> str:
    path = folder / NAME_FILE
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _connect(url: str) -> optuna.storages.RDBStorage:
    """Connect to a database. ``${NAME}`` in the URL stands for an environment variable, which no message shows."""
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
