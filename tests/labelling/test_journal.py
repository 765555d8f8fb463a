"""The journal: what was appended is read back, and a torn line costs itself alone."""

import pytest

from fisa.labelling.journal import Journal


RECORDS = [{"photo": "café ☃.png", "area": 3}, {"photo": "\udce9 not UTF-8.png"}, {"photo": "three\nlines.png"}]


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return journal


def records(journal):
    return [line.record for line in journal.lines()]


def test_what_was_appended_is_read_back(journal):
    assert records(journal) == RECORDS
    assert [journal.at(line.start) for line in journal.lines()] == RECORDS


def test_wherever_the_file_was_cut_whole_lines_remain_and_the_next_is_whole(journal, tmp_path):
    content = journal.path.read_bytes()
    ends = [line.end for line in journal.lines()]
    for length in range(len(content) + 1):
        cut = Journal(tmp_path / "cut.jsonl")
        cut.path.write_bytes(content[:length])
        whole = RECORDS[: sum(end <= length for end in ends)]
        assert records(cut) == whole
        cut.append({"photo": "next"})
        cut.close()
        assert records(cut) == [*whole, {"photo": "next"}]


def test_zeros_that_a_power_cut_leaves_are_no_record(journal):
    with open(journal.path, "ab") as file:
        file.write(bytes(100) + b"\n")
    journal.append({"photo": "next"})
    assert records(journal) == [*RECORDS, {"photo": "next"}]
