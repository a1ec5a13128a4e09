"""Tables, as plain text for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, rule, *rows)
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right; bars in cells are escaped."""
    rule = [":--", *("--:" for _ in header[1:])]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *escaped))


def with_interval(entry: Mapping, key: str, sign: str = "") -> str:
    """0.970 [0.950, 0.990]; the number alone where there is no interval, - where no number is."""
    if entry[key] is None:
        return "-"
    interval = entry.get(f"{key}_ci95")
    bounds = f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else ""
    return f"{entry[key]:{sign}.3f}{bounds}"
