#!/usr/bin/env python3
"""Write the generated parts of README.md: the settings and the reasons of refusals.

`scripts/gen_readme.py` writes; tests/test_source.py compares.
"""

import re
import sys
from pathlib import Path

from _environment import ROOT, enter

README = Path(ROOT) / "README.md"


def settings() -> str:
    from maestoso_server.config import markdown_table

    return markdown_table()


def reasons() -> str:
    from maestoso_server.errors import RULES

    lines = ["| reason | gRPC code | HTTP | repeat | what to do |", "| --- | --- | --- | --- | --- |"]
    for reason, rule in RULES.items():
        repeat = "yes" if rule.retryable else "no"
        lines.append(f"| `{reason.name}` | {rule.code.name} | {rule.http} | {repeat} | {rule.remedy} |")
    return "\n".join(lines) + "\n"


PARTS = {"settings": settings, "reasons": reasons}


def fresh(readme: str) -> str:
    """The README's text with its generated parts written anew."""
    for name, write in PARTS.items():
        part = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert part.search(readme), f"README.md has no part {name!r}"
        text = write()
        readme = part.sub(lambda found, text=text: found[1] + text + found[2], readme)
    return readme


if __name__ == "__main__":
    enter()
    README.write_text(fresh(README.read_text()))
    sys.exit(0)
