#!/usr/bin/env python3
"""Checks the relative links of the Markdown files in this checkout: links.py [ROOT]. The target must exist, and so must its heading."""

import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(file):
    """The anchors of a file's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", file.read_text(), re.MULTILINE):
        text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


def broken(root, files):
    for file in files:
        text = re.sub(r"```.*?```", lambda match: "\n" * match.group().count("\n"), file.read_text(), flags=re.DOTALL)
        for number, line in enumerate(text.splitlines(), 1):
            for link in LINK.findall(line):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = (file.parent / path).resolve() if path else file
                if not target.exists():
                    yield f"{file.relative_to(root)}:{number}: {link}: no such file"
                elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                    yield f"{file.relative_to(root)}:{number}: {link}: no such heading"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2])
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=root, check=True, capture_output=True, text=True).stdout
    found = list(broken(root, [root / name for name in listed.split()]))
    print("\n".join(found) if found else "links: all there")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
