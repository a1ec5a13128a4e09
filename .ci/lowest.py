"""Prints constraints for pip that hold every requirement of setup.cfg at its lowest version.

python .ci/lowest.py > lowest.txt && pip install --constraint lowest.txt -e '.[test]'
"""

import configparser
import re
import sys
from pathlib import Path

setup = configparser.ConfigParser()
setup.read(Path(__file__).parent.parent / "setup.cfg")
lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
constraints = set()
for line in sorted({line for text in lists for line in text.split("\n") if line}):
    found = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line)  # a constraint has no extra
    if not found:
        sys.exit(f"setup.cfg: {line!r} names no lowest version; write it as {line}>=VERSION")
    constraints.add("==".join(found.groups()))
print("\n".join(sorted(constraints)))
