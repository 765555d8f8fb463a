"""The method, and nothing else.

The place to start reading is `tests/modeling_fisa/plain_fisa.py` in the repository: the image tower once more, as
plain loops over one proposal, one head and one pixel at a time. Then, in the order in which a photo passes
through them:

- `mask_generation`: the proposals of a frozen generator, or ready ones;
- `encoded_vocabulary`: class texts and what is known of their classes;
- `mask_attention`, `semantic_guidance` (SEVE), `mask_encoder`: mask tokens in CLIP's image tower;
- `mask_classification`, `generator_opinion` over `class_kinds`, `zoom`: scores;
- `proposal_matching`, `loss_fisa`, `simo`: training;
- `modeling_fisa`: what the whole model does in a call, over `assembled_fisa`, how it is put together;
- `fisa_model`: the classifier alone, over `vocabulary_model`, its words, and `pretrained_fisa`, its loading;
- `outputs_fisa`: what they return.
"""
