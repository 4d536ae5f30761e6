#!/usr/bin/env python3
"""The corpus between a folder of files, as the fuzzer wants it, and a list of lines, as a repository does.

    fuzz/corpus.py unpack TARGET FOLDER    writes each line of found/TARGET.hex into a file of FOLDER
    fuzz/corpus.py pack TARGET FOLDER      makes found/TARGET.hex of the files of FOLDER
"""

import hashlib
import pathlib
import sys


def unpack(found: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in found.read_text().split():
        content = bytes.fromhex(line)
        (folder / hashlib.sha1(content).hexdigest()).write_bytes(content)


def pack(found: pathlib.Path, folder: pathlib.Path) -> None:
    lines = {path.read_bytes().hex() for path in folder.iterdir()} - {""}
    found.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: (len(line), line))))


def main() -> None:
    match sys.argv[1:]:
        case ["unpack" | "pack" as way, target, folder]:
            found = pathlib.Path(__file__).parent / "found" / f"{target}.hex"
            (unpack if way == "unpack" else pack)(found, pathlib.Path(folder))
        case _:
            sys.exit(__doc__)


main()
