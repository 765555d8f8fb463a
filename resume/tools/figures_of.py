"""evaluate.py OUT MODEL [ADAPTER] : PQ, mIoU on home, shifted, third (120 scenes each of the new pack)."""
import sys, json
from pathlib import Path
import torch; torch.set_num_threads(1)
from fisa import train
from fisa.studies.patchwork.reproduce import SHARED_FLAGS, CATEGORIES, as_flags, figures
out=Path(sys.argv[1]); model=Path(sys.argv[2]); adapter=sys.argv[3] if len(sys.argv)>3 else None
import os; P=Path(os.environ.get("PACK","/work/hands_runs/pack"))
for split,data in (("validation",P),("validation_shifted",P),*([] if "PACK" in os.environ else [("validation_third",Path("/work/hands_runs/third"))])):
    f=out/split; m=f/"metrics.json"
    if not m.exists():
        flags=SHARED_FLAGS|{"model":model,"eval_data":data,"eval_split":split,"do_eval":"true","output_dir":f,"per_device_eval_batch_size":24}
        if "ZOOM" in os.environ: flags["zoom"]=os.environ["ZOOM"]
        if adapter: flags["adapter"]=adapter
        train.train_and_evaluate(as_flags(flags))
    g=figures(json.loads(m.read_text()))
    print("RESULT",out.name,split,{k:round(v,1) for k,v in g.items()},flush=True)
