"""The tables of costs are what the benchmarks printed."""

from fisa.studies.benchmarks import table


def test_the_page_has_the_tables_of_the_recorded_lines():
    measured = table.recorded()
    assert len(measured) > len(table.HEADLINES) > 5
    page = (table.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert table.table(measured) in page and table.table(table.headlines(measured)) in page


def test_a_row_says_both_sides_and_what_they_come_to():
    line = {"benchmark": "panoptic_quality", "images": 5000, "fisa_cpu_seconds": 0.002, "numpy_cpu_seconds": 1.5}
    assert table.table(table.rows([line | {"times_faster": 750.0}])).splitlines()[-1] == (
        "| PQ of an image, 5,000 of them; panopticapi's protocol in NumPy | 2 ms | 1.50 s | 750.0 × as fast |"
    )
