"""Class texts on disk: what one process encodes, the next one reads, and only if it would encode the same."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fisa.miniature import miniature
from tests.acceleration.test_class_texts import TextRuns


WORDS = ["dog", "sky", "red car", "grass"]


def encoded(model, processor, words, folder, **options):
    """The embeddings of the words, and how many prompts were encoded for them."""
    runs = TextRuns(model)
    embeds = model.encode_vocabulary(processor, words, text_cache=folder, **options)["class_embeds"]
    return embeds, runs.prompts


def test_another_process_reads_what_was_encoded(tmp_path):
    """But for a probe of the encoder, and a name from the files that is compared with it."""
    wanted, _ = encoded(*miniature(), WORDS, tmp_path)
    found, prompts = encoded(*miniature(), WORDS, tmp_path)
    assert torch.equal(found, wanted) and prompts <= 2


def test_what_is_read_is_what_would_be_encoded_without_files(tmp_path):
    encoded(*miniature(), WORDS[:2], tmp_path)
    found, _ = encoded(*miniature(), WORDS, tmp_path)
    wanted, _ = encoded(*miniature(), WORDS, None)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_order_does_not_matter_and_new_names_are_added(tmp_path):
    first, _ = encoded(*miniature(), WORDS[:3], tmp_path)
    second, prompts = encoded(*miniature(), WORDS[::-1], tmp_path)
    assert torch.equal(second[1:].flip(0), first) and prompts <= 1 + 2
    third, prompts = encoded(*miniature(), WORDS, tmp_path)
    assert torch.equal(third, second.flip(0)) and prompts <= 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_texts_of_eight_bits_are_kept_apart(tmp_path):
    quantization = pytest.importorskip("torch.ao.quantization")
    wanted, _ = encoded(*miniature(), WORDS, tmp_path)
    for prompts_at_most in (1 + len(WORDS), 2):  # the second time they are read
        model, processor = miniature()
        model = quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        found, prompts = encoded(model, processor, WORDS, tmp_path)
        assert prompts <= prompts_at_most
        assert not torch.equal(found, wanted) and torch.cosine_similarity(found, wanted).min() > 0.9


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path):
    names = [f"{number}" for number in range(9000)]
    model, processor = miniature()
    runs = TextRuns(model)

    def stop(module, args, output):
        if runs.prompts > 6000:
            raise KeyboardInterrupt

    model.fisa.text_model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model.encode_vocabulary(processor, names, text_cache=tmp_path)
    _, prompts = encoded(*miniature(), names, tmp_path)
    assert prompts <= 9000 - 4096 + 2


CHANGES = {
    "weights": lambda model, processor: model.fisa.text_projection.weight.data.mul_(-1),
    "templates": lambda model, processor: setattr(processor, "prompt_templates", ("a drawing of a {}",)),
    "type": lambda model, processor: model.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_encoder_reads_nothing_of_it(tmp_path, change):
    encoded(*miniature(), WORDS, tmp_path)
    model, processor = miniature()
    CHANGES[change](model, processor)
    found, prompts = encoded(model, processor, WORDS, tmp_path)
    assert prompts >= len(WORDS)
    wanted = model.encode_vocabulary(processor, WORDS)["class_embeds"]
    assert torch.equal(found, wanted)
    other, other_processor = miniature()
    assert encoded(other, other_processor, WORDS, tmp_path)[1] <= 2


def test_image_weights_do_not_count(tmp_path):
    encoded(*miniature(), WORDS, tmp_path)
    model, processor = miniature()
    model.fisa.mask_encoder.mask_position.weight.data.add_(1)
    assert encoded(model, processor, WORDS, tmp_path)[1] <= 2


def test_an_encoder_that_changed_beside_its_weights_is_found_out(tmp_path):
    encoded(*miniature(), WORDS, tmp_path)
    model, processor = miniature()
    model.fisa.text_projection.register_forward_hook(lambda module, args, output: -output)
    with pytest.raises(ValueError, match="no longer encoded as it was"):
        encoded(model, processor, ["lake"], tmp_path)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def not_a_number(path):
    rewrite(path, lambda embeds: embeds.fill_(float("nan")))


def swap_rows(path):
    rewrite(path, lambda embeds: embeds.copy_(embeds.flip(0)))


def strangers_file(path):
    save_file({"embeds": torch.zeros(4, 3)}, path)


def rewrite(path, change):
    with safe_open(path, framework="pt") as file:
        metadata, embeds = file.metadata(), file.get_tensor("embeds")
    change(embeds)
    save_file({"embeds": embeds}, path, metadata=metadata)


@pytest.mark.parametrize("damage", [cut_short, not_a_number, swap_rows, strangers_file], ids=lambda f: f.__name__)
def test_a_damaged_file_is_named_and_made_again(tmp_path, damage, caplog):
    wanted, _ = encoded(*miniature(), WORDS, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    damage(path)
    mended, _ = encoded(*miniature(), WORDS, tmp_path)
    assert path.name in caplog.text and torch.equal(mended, wanted)
    caplog.clear()
    again, prompts = encoded(*miniature(), WORDS, tmp_path)
    assert torch.equal(again, wanted) and prompts <= 2 and not caplog.text


def test_a_stored_vocabulary_is_read_from_files_too(tmp_path):
    wanted, _ = encoded(*miniature(), WORDS, tmp_path)
    model, processor = miniature()
    runs = TextRuns(model)
    model.set_vocabulary(processor, WORDS, text_cache=tmp_path)
    assert torch.equal(model.fisa.class_embeds, wanted) and runs.prompts <= 2
