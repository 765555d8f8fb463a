"""The method, and nothing else.

The place to start reading is `tests/modeling_fisa/plain_fisa.py` in the repository: the image tower once more, as
plain loops over one proposal, one head and one pixel at a time. Then, in the order in which a photo passes
through them:

- `mask_generation`: the proposals of a frozen generator, or ready ones;
- `encoded_vocabulary`: class texts and what is known of their classes;
- `mask_attention`, `semantic_guidance` (SEVE), `mask_encoder`: mask tokens in CLIP's image tower;
- `mask_classification`: scores;
- `proposal_matching`, `loss_fisa`, `simo`: training;
- `fisa_model`, `modeling_fisa`, `outputs_fisa`: the public models and what they return.
"""
