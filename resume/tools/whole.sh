# whole.sh CLIP GENERATOR NAME: assemble, adapter, figures with zoom 8
. /work/hands_runs/env
set -e
D=/work/hands_runs/whole_$3
.venv/bin/python /work/hands_runs/tools/assemble.py /work/hands_runs/$1 /work/hands_runs/$2 $D/model > $D.log 2>&1
ZOOM=8 .venv/bin/python /work/hands_runs/tools/figures_of.py $D/frozen_zoom $D/model 2>&1 | tee -a $D.log | grep RESULT
.venv/bin/python train.py recipes/patchwork.yaml --model $D/model --do_eval false --report_to none --save_strategy no --output_dir $D/adapter --proposal_cache $D/proposals >> $D.log 2>&1
echo adapter $(date)
ZOOM=8 .venv/bin/python /work/hands_runs/tools/figures_of.py $D/adapted_zoom $D/model $D/adapter 2>&1 | tee -a $D.log | grep RESULT
.venv/bin/python /work/hands_runs/tools/figures_of.py $D/adapted $D/model $D/adapter 2>&1 | tee -a $D.log | grep RESULT
