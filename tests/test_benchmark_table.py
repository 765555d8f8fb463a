"""The README's table of costs is what the benchmarks printed."""

import json

from fisa.benchmarks import table


def test_the_readme_has_the_table_of_the_recorded_lines():
    lines = [json.loads(line) for line in table.LINES.read_text(encoding="utf-8").splitlines()]
    assert len(table.rows(lines)) > 5
    assert table.table(lines) in (table.ROOT / "README.md").read_text(encoding="utf-8")


def test_a_row_says_both_sides_and_what_they_come_to():
    line = {"benchmark": "panoptic_quality", "images": 5000, "fisa_cpu_seconds": 0.002, "numpy_cpu_seconds": 1.5}
    assert table.table([line | {"times_faster": 750.0}]).splitlines()[-1] == (
        "| PQ of an image, 5,000 of them; panopticapi's protocol in NumPy | 2 ms | 1.50 s | 750.0 × as fast |"
    )
