"""What a wheel and an sdist must hold and must not: python .ci/check_dist.py DIST_FOLDER."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
(sdist,) = folder.glob("*.tar.gz")

names = zipfile.ZipFile(wheel).namelist()
strays = [n for n in names if not re.match(r"nagcore/|nagcore-[\d.]+\.dist-info/", n)]
assert not strays, f"{wheel.name} holds {strays}"
assert [n for n in names if re.fullmatch(r"nagcore/_core\.[\w.-]+\.(so|pyd)", n)], names
for needed in ("__init__.py", "py.typed", "_core.pyi", "cli/app.py", "linear_model/__init__.py"):
    assert f"nagcore/{needed}" in names, f"{wheel.name} lacks {needed}"
assert [n for n in names if n.endswith("licenses/LICENSE")], f"{wheel.name} lacks the licence"
unwanted = [n for n in names if re.search(r"\.(cc|h|a|o)$|__pycache__|CMake", n)]
assert not unwanted, f"{wheel.name} holds {unwanted}"

files = [n.partition("/")[2] for n in tarfile.open(sdist).getnames()]
for needed in ("pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", ".ci/run", "PKG-INFO"):
    assert needed in files, f"{sdist.name} lacks {needed}"
for room in ("csrc", "python", "tests", "bench", "docs"):
    assert [f for f in files if f.startswith(f"{room}/")], f"{sdist.name} lacks {room}/"
unwanted = [f for f in files if re.search(r"\.(so|pyd|o|a|whl)$|^build|^dist|__pycache__", f)]
assert not unwanted, f"{sdist.name} holds {unwanted}"
print(f"{wheel.name} holds {len(names)} files, {sdist.name} {len(files)}")
