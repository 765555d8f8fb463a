"""threshold.py MODEL [ADAPTER]: PQ on home and shifted of frozen model for several objectness thresholds, and how calibrated objectness is."""
import sys,torch,numpy as np; torch.set_num_threads(1)
from transformers import Mask2FormerForUniversalSegmentation as M
from fisa.studies.patchwork.generator_pretraining import *
m=M.from_pretrained(sys.argv[1]).eval()
for a in ("noto","twemoji"):
    p=Painter(a,seed=20 if a=="noto" else 30); obj=[];fit=[]; ntruth=0
    for s in range(0,120,24):
        sc=[p.paint(SceneKind(),i) for i in range(s,s+24)]
        with torch.no_grad(): o=m(pixel_values=generator_pixels(sc))
        lg=torch.nn.functional.interpolate(o.masks_queries_logits,size=(192,192),mode="bilinear")
        ob=1-o.class_queries_logits.softmax(-1)[...,-1]
        for scene,pr,q in zip(sc,(lg>0).flatten(2).float(),ob):
            t=torch.from_numpy(segment_masks(scene)).flatten(1).float(); sh=t@pr.T; iou=sh/(t.sum(1)[:,None]+pr.sum(1)-sh)
            ntruth+=len(t)
            # greedy by objectness: a proposal matches its best segment if IoU >= .5 and that one is not taken
            taken=set()
            for i in q.argsort(descending=True).tolist():
                j=int(iou[:,i].argmax()); ok=bool(iou[j,i]>=.5) and j not in taken
                if ok: taken.add(j)
                obj.append(float(q[i])); fit.append(ok)
    obj,fit=np.array(obj),np.array(fit)
    for lo,hi in zip(np.arange(0,1,.1),np.arange(.1,1.1,.1)):
        k=(obj>=lo)&(obj<hi+1e-9); print(f"{lo:.1f}-{hi:.1f} n={k.sum()} mean={obj[k].mean() if k.any() else 0:.2f} fits={fit[k].mean() if k.any() else 0:.2f}",end="; ")
    print()
    for th in (.1,.2,.3,.4,.5,.6,.7,.8,.9):
        k=obj>=th; tp=fit[k].sum(); print(a,th,"recall",round(tp/ntruth,3),"spare/scene",round((k.sum()-tp)/120,2),"F1 (RQ)",round(2*tp/(k.sum()+ntruth),3))
