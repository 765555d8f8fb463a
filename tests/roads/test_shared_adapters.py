"""An adapter that is shared on a Hub: trained on a base that lies there, fetched and used by somebody else."""

import shutil

from tests.roads.made_hub import serving
from tests.roads.made_photos import write_label_maps
from tests.roads.walking import walk


BASE, ADAPTER = "me/my-fisa", "me/my-adapter"


def test_an_adapter_from_the_hub_brings_its_base_and_its_words(checkpoint, photo, tmp_path):
    hub, mine, yours = (tmp_path / name for name in ("hub", "mine", "yours"))
    shutil.copytree(checkpoint, hub / BASE)
    write_label_maps(mine / "photos")
    yours.mkdir()
    photo.save(yours / "photo.jpg")
    with serving(hub) as address:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address}
        data = (
            "--train_format",
            "label_maps",
            "--train_data",
            "photos",
            "--do_train",
            "--max_steps",
            "2",
            "--use_cpu",
        )
        training = ("fisa-train", "--model", BASE, *data, "--report_to", "none", "--output_dir", "adapter")
        walk(*training, cwd=mine, HF_HOME=str(mine / "home"), **online)
        shutil.copytree(mine / "adapter", hub / ADAPTER)  # as `hf upload` does
        shutil.rmtree(mine)
        command = ("fisa-segment", "photo.jpg", "--model", ADAPTER, "--threshold", "0", "--output", "found")
        printed = walk(*command, cwd=yours, HF_HOME=str(yours / "home"), **online)
        assert "1 of 1 photos segmented" in printed and ("sky" in printed or "car" in printed)
    again = walk(*command, "--overwrite", cwd=yours, HF_HOME=str(yours / "home"))  # without the Hub
    assert "1 of 1 photos segmented" in again
