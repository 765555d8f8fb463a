"""Processes that a launcher starts hear what the main one says, as often as it says it."""

from tests.roads.walking import walk


SCRIPT = """
from fisa.labelling.processes import Processes

processes = Processes.started()
for number in range(20):
    assert processes.from_main(lambda: number) == number
# One piece, whole: what the processes print is not buffered, and mixes.
print(f"heard {processes.rank};", end="")
"""


def test_they_hear_it_again_and_again(tmp_path):
    (tmp_path / "hear.py").write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    said = walk("python", *launcher, "hear.py", cwd=tmp_path, timeout=120)
    assert "heard 0;" in said and "heard 1;" in said
