from pathlib import Path
from fisa.studies.patchwork import dataset as d
d.SPLITS["validation_third"]=d.Split(d.THIRD,35,only_seen=False,num_shipped=0)
d.write_split("validation_third",Path("/work/hands_runs/third"),num_scenes=120)
