"""Published data sets: records, file names, sizes and checksums.

Recordings are on Zenodo, one archive per machine and part. Labels of an evaluation set were published later, in files
of their own. Sizes are in bytes, None where unknown. Sizes and MD5s of the 2022 records are unknown; those archives are
verified by the server's size and by the CRC-32 of every member.
Sources: DCASE 2020 MD5s from the soundata loader, sizes from git-annex keys of a mirror (they agree);
DCASE 2022 names from the baselines' instructions, ground truth from the official evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from urllib.parse import quote

from asd_ray.data.layouts import dcase2020, dcase2022
from asd_ray.errors import ConfigError

PARTS = ("dev", "additional", "eval")
"""Development set; additional training clips of the evaluation IDs; test clips of the evaluation set."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A downloadable file.

    Attributes:
        record: its publication; also its folder at a mirror.
        name: path within the record, with forward slashes.
        address: published URL.
        machine: machine type; None for a file about all machines.
        part: one of ``PARTS``.
        size: in bytes, None if unknown.
        md5: hexadecimal, None if unknown.
    """

    record: str
    name: str
    address: str
    machine: str | None
    part: str
    size: int | None = None
    md5: str | None = None

    def url(self, base_url: str | None = None) -> str:
        """The published address, or ``{base_url}/{record}/{name}``."""
        return f"{base_url.rstrip('/')}/{self.record}/{quote(self.name)}" if base_url else self.address


@dataclass(frozen=True)
class Registry:
    """The files of one data set.

    Attributes:
        name: as on the command line.
        layout: module that parses the set's file names.
        archives: zip files of recordings, each with one folder ``<machine>/``.
        ground_truth: label lists of the evaluation set.
        machines: machine types, in the set's order.
    """

    name: str
    layout: ModuleType
    archives: tuple[RemoteFile, ...]
    ground_truth: tuple[RemoteFile, ...]

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file.machine for file in self.archives if file.machine))

    def select(self, machines: Sequence[str] | None, parts: Sequence[str]) -> tuple[list[str], list[RemoteFile]]:
        """Select machines (None: all) and their archives of some parts, in the order of machines.

        Raises:
            ConfigError: an unknown machine or part, or none at all.
        """
        wanted = list(self.machines) if machines is None else list(dict.fromkeys(machines))
        for kind, names, known in (("machine", wanted, self.machines), ("part", list(parts), PARTS)):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"{self.name} has no {kind} {', '.join(unknown)}; choose from {', '.join(known)}.")
            if not names:
                raise ConfigError(f"no {kind} of {self.name} is asked for; choose from {', '.join(known)}.")
        chosen = [file for m in wanted for file in self.archives if file.machine == m and file.part in parts]
        return wanted, chosen


def find_registry(name: str) -> Registry:
    """Find the registry of a data set by name.

    Raises:
        ConfigError: unknown name.
    """
    if name not in REGISTRIES:
        raise ConfigError(f"there is no data set {name!r} to download; choose from {', '.join(REGISTRIES)}.")
    return REGISTRIES[name]


def _zenodo(
    record: int, name: str, machine: str | None, part: str, size: int | None = None, md5: str | None = None
) -> RemoteFile:
    address = f"https://zenodo.org/records/{record}/files/{name}?download=1"
    return RemoteFile(str(record), name, address, machine, part, size, md5)


# Machine -> size and MD5 of its development, additional training and evaluation archive.
_DCASE2020: dict[str, tuple[tuple[int | None, str], ...]] = {
    "fan": (
        (1_354_774_772, "649bdfc06263ae7a838963f43b6641e6"),
        (697_147_242, "567798854130c8019df8b664c095ed1e"),
        (None, "1eb9356a768cadfd0f2e59a5c57e578b"),
    ),
    "pump": (
        (1_031_279_015, "90e7091ef722b7238a7f1009365779cd"),
        (590_897_096, "4e33ae9c0db5cc88437675f5e317caee"),
        (None, "23a8f8f924be218c69df67fe07360348"),
    ),
    "slider": (
        (1_002_998_966, "da24a757719f0d94d5aa2d646bbfdc86"),
        (577_515_541, "f84f186f4295fc23754abcdd1b0580a7"),
        (None, "0193c769073840332ce3aad84b1ccaa2"),
    ),
    "valve": (
        (1_013_925_627, "34d2672f55bb041589ef79c10dc89934"),
        (615_645_426, "057cdd560caffb8305449541afd28c6d"),
        (None, "f69c551d2088691050d20cccca9d631c"),
    ),
    "ToyCar": (
        (1_816_443_231, "4dec75ca8d9f666aa9e4c1894a740501"),
        (861_354_584, "a5d4ccd498af70b04dd74b644b820006"),
        (None, "bea2bdd612f616be8f2b8eb087b32c7c"),
    ),
    "ToyConveyor": (
        (1_868_564_070, "03b6aa1bfd09a39d53af0ba39f71fa91"),
        (887_026_878, "0e808ac0b761e9fb13d5e0c65caff00d"),
        (None, "ccfcc9847c7d3404d7ee9d6d9e0b2ba2"),
    ),
}

DCASE2020 = Registry(
    name="dcase2020",
    layout=dcase2020,
    archives=tuple(
        _zenodo(record, name.format(machine), machine, part, size, md5)
        for machine, checks in _DCASE2020.items()
        for (record, name, part), (size, md5) in zip(
            (
                (3678171, "dev_data_{}.zip", "dev"),
                (3727685, "eval_data_train_{}.zip", "additional"),
                (3841772, "eval_data_test_{}.zip", "eval"),
            ),
            checks,
            strict=True,
        )
    ),
    ground_truth=(_zenodo(3951620, "eval_data_list.csv", None, "eval", 338_426, "f16aaa185df9906e588864aaf7cb58ea"),),
)

# A fixed commit. Its ground_truth_attributes/ contradicts the two folders used here, and the official score ignores it.
_EVALUATOR = "https://raw.githubusercontent.com/Kota-Dohi/dcase2022_evaluator/de8719b7d35280ff3a39487c9d1003413eef7818"

DCASE2022 = Registry(
    name="dcase2022",
    layout=dcase2022,
    archives=tuple(
        _zenodo(record, name.format(machine), machine, part)
        for machine in dcase2022.MACHINES
        for record, name, part in (
            (6355122, "dev_{}.zip", "dev"),
            (6462969, "eval_data_{}_train.zip", "additional"),
            (6586456, "eval_data_{}_test.zip", "eval"),
        )
    ),
    ground_truth=tuple(
        RemoteFile("dcase2022_evaluator", name, f"{_EVALUATOR}/{name}", machine, "eval")
        for machine in dcase2022.MACHINES
        for section in ("03", "04", "05")
        for name in (
            f"ground_truth_data/ground_truth_{machine}_section_{section}_test.csv",
            f"ground_truth_domain/ground_truth_{machine}_section_{section}_test.csv",
        )
    ),
)

REGISTRIES = {registry.name: registry for registry in (DCASE2020, DCASE2022)}
"""Name on the command line -> registry."""
