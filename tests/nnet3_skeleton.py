"""The text form of a network without its numbers, to compare grammars."""

import re

NUMBER = re.compile(r"(?<![\w.<-])-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf)(?![\w.>])")


def skeleton(text: str) -> str:
    """Runs of numbers become `#count`, equal lines that follow each other `line xN`."""
    lines: list[list] = []
    for line in text.split("\n"):
        if not line.startswith(("component-node", "input-node", "output-node")):
            line = NUMBER.sub("#", line)
            line = re.sub(r"#(?: #)*", lambda run: f"#{run[0].count('#')}", line)
        if lines and lines[-1][0] == line:
            lines[-1][1] += 1
        else:
            lines.append([line, 1])
    return "\n".join(f"{line} x{count}" if count > 1 else line for line, count in lines)
