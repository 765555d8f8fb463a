"""assemble.py CLIP GENERATOR OUT"""
import sys; from pathlib import Path
from fisa.studies.patchwork.checkpoint import assemble, save
c,g,o=map(Path,sys.argv[1:4]); save(*assemble(c,g),o)
