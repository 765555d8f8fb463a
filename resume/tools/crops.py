"""crops.py MODEL...: share of things named right among all words and among things, with true masks, in the scene and on crops."""
import sys, numpy as np, torch, torch.nn.functional as F
torch.set_num_threads(1)
from PIL import Image
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.studies.patchwork.scenes import *
from fisa.studies.patchwork.words import *
from fisa.studies.patchwork.clip_pretraining import normalised
N=40
def scenes(artist):
    p=Painter(artist,seed=35); return [p.paint(SceneKind(),i) for i in range(N)]
S={a:scenes(a) for a in ("noto","twemoji","fluent")}
for path in sys.argv[1:]:
    m=FisaForUniversalSegmentation.from_pretrained(path).eval()
    ce=m.fisa.class_embeds if hasattr(m.fisa,"class_embeds") else None
    for a,ss in S.items():
        r={"scene":[0,0],"crop48":[0,0],"crop96":[0,0]}; n=0; stuff_wrong=0
        for s in ss:
            things=[i for i in s.segments_info if i["category_id"]<=len(THINGS)]
            if not things: continue
            n+=len(things); truth=torch.tensor([i["category_id"]-1 for i in things])
            masks=np.stack([s.label==i["id"] for i in things])
            def read(images,ms):
                with torch.no_grad():
                    o=m(pixel_values=normalised(images),mask_proposals=torch.from_numpy(ms*20.0-10).float(),objectness=torch.ones(ms.shape[:2]))
                return o.class_queries_logits[...,:-1]
            im=Image.fromarray(s.image)
            l=read(np.asarray(im.resize((96,96),Image.BICUBIC))[None],masks[None])[0]
            def count(k,l):
                r[k][0]+=(l.argmax(-1)==truth).sum().item(); r[k][1]+=(l[:,:len(THINGS)].argmax(-1)==truth).sum().item()
            count("scene",l); stuff_wrong+=(l.argmax(-1)>=len(THINGS)).sum().item()
            for size in (48,96):
                ci,cm=[],[]
                for k in masks:
                    y,x=np.nonzero(k); c=((y.min()+y.max()+1)/2,(x.min()+x.max()+1)/2); h=1.2*max(np.ptp(y)+1,np.ptp(x)+1)/2
                    box=(c[1]-h,c[0]-h,c[1]+h,c[0]+h)
                    # keep inside
                    dx=max(0,-box[0])-max(0,box[2]-192); dy=max(0,-box[1])-max(0,box[3]-192); box=(box[0]+dx,box[1]+dy,box[2]+dx,box[3]+dy)
                    ci.append(np.asarray(im.resize((size,size),Image.BICUBIC,box=tuple(np.clip(box,0,192)))))
                    cm.append(np.asarray(Image.fromarray(k.astype(np.uint8)*255).resize((size,size),Image.BOX,box=tuple(np.clip(box,0,192))))>127)
                count(f"crop{size}",read(np.stack(ci),np.stack(cm)[:,None])[:,0])
        print(path.split("/")[-1],a,n,{k:(round(100*v[0]/n,1),round(100*v[1]/n,1)) for k,v in r.items()},"stuff",round(100*stuff_wrong/n,1),flush=True)
