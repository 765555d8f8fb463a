"""top1.py FISA_FOLDER N: zero-shot accuracy by each hand."""
import sys,torch; torch.set_num_threads(1)
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation as M
from fisa.studies.patchwork.clip_pretraining import *
from fisa.studies.patchwork.glyphs import ARTISTS
m=M.from_pretrained(sys.argv[1]); tok=word_tokenizer(); clip=new_clip(tok)
clip.load_state_dict({k.removeprefix("fisa."):v for k,v in m.state_dict().items() if k.removeprefix("fisa.") in clip.state_dict()})
if len(sys.argv)>3: clip.save_pretrained(sys.argv[3])
print(sys.argv[1].split("/")[-1],{a:round(100*zero_shot_accuracy(clip,tok,Painter(a,seed=3000),num_pictures=int(sys.argv[2])),2) for a in ARTISTS})
