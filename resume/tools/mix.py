"""mix.py A B ALPHA OUT: A*(1-alpha)+B*alpha of two FISA folders, class texts anew."""
import sys,torch
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation as M
from fisa.processing.processing_fisa import FisaProcessor
from fisa.studies.patchwork.words import vocabulary
from transformers import CLIPModel
a,b=(M.from_pretrained(p) for p in sys.argv[1:3]); al=float(sys.argv[3])
sa,sb=a.state_dict(),b.state_dict()
b.load_state_dict({k:(v.lerp(sb[k],al) if v.is_floating_point() else v) for k,v in sa.items()})
p=FisaProcessor.from_pretrained(sys.argv[2]); b.set_vocabulary(p,vocabulary()); b.eval()
b.save_pretrained(sys.argv[4]); p.save_pretrained(sys.argv[4])
