"""Others in the model: scores are those of all words together, told apart; stored ones are saved, loaded, merged."""

import copy
import threading

import pytest
import torch
from peft import PeftModel

from fisa import FisaConfig, FisaForUniversalSegmentation, get_simo_model
from fisa.miniature import miniature
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.models import tiny_segmentation_model


ASKED, OTHERS = {"dog": ["puppy"], "sky [stuff]": []}, {"cat": ["kitten"], "wall [stuff]": [], "car": []}
SAME = ("masks_queries_logits", "objectness", "mask_embeds")


def assert_told_apart(apart, together, *, num_classes):
    """`apart` are outputs with others after `num_classes` classes, `together` those with all of them as classes."""
    joint = together.class_queries_logits
    assert torch.equal(apart.class_queries_logits[..., :-1], joint[..., :num_classes])
    assert torch.equal(apart.others_queries_logits, joint[..., num_classes:-1])
    none_asked = joint[..., num_classes:].double().exp().sum(-1)
    torch.testing.assert_close(apart.class_queries_logits[..., -1].double().exp(), none_asked, atol=1e-6, rtol=1e-5)
    assert torch.equal(apart.logits_per_mask, together.logits_per_mask[..., :num_classes])
    for name in SAME:
        assert torch.equal(apart[name], together[name])


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"seve_tokens": "both"}, {"ensemble_weight": 0.4, "kind_weight": 2.0}], ids=str
)
def test_scores_are_those_of_all_words_told_apart(options):
    model = tiny_segmentation_model("eomt", **options)
    inputs = tiny_inputs(batch_size=2) | tiny_generator_inputs([(64, 64)] * 2, canvas=(64, 64))
    del inputs["mask_proposals"]
    texts = torch.randn(6, inputs.pop("class_embeds").shape[-1], generator=torch.Generator().manual_seed(1))
    things, known = torch.tensor([True, False, True, False]), torch.tensor([2, -1, 0, -1])
    kinds = torch.tensor([-1, 0, 1, 0])
    asked = {"class_embeds": texts[:3], "prompt_class_ids": torch.tensor([0, 0, 1])}
    asked |= {"class_is_thing": things[:2], "class_kinds": kinds[:2], "generator_class_ids": known[:2]}
    others = {"other_embeds": texts[3:], "prompt_other_ids": torch.tensor([0, 1, 1])}
    others |= {"other_is_thing": things[2:], "other_kinds": kinds[2:], "other_generator_class_ids": known[2:]}
    together = model(
        **inputs,
        class_embeds=texts,
        prompt_class_ids=torch.tensor([0, 0, 1, 2, 3, 3]),
        class_is_thing=things,
        class_kinds=kinds,
        generator_class_ids=known,
    )
    apart = model(**inputs, **asked, **others)
    assert_told_apart(apart, together, num_classes=2)
    assert (
        apart.class_is_thing.tolist() == [[True, False]] * 2 and apart.other_is_thing.tolist() == [[True, False]] * 2
    )
    assert torch.equal(apart.class_embeds, texts[:3].expand(2, -1, -1))
    for_each_photo = asked | {"class_embeds": texts[:3].expand(2, -1, -1)}
    torch.testing.assert_close(model(**inputs, **for_each_photo, **others), apart)
    # What is not given: each other its own, a thing, and unknown to the generator.
    fewer = model(**inputs, **asked, other_embeds=texts[3:])
    assert fewer.other_is_thing.tolist() == [[True] * 3] * 2 and fewer.others_queries_logits.shape[-1] == 3


@torch.no_grad()
def test_no_others_are_the_closed_set_to_the_last_bit():
    model, inputs = tiny_segmentation_model(), tiny_inputs()
    closed = model(**inputs)
    none = model(**inputs, other_embeds=inputs["class_embeds"][:0])
    assert torch.equal(none.class_queries_logits, closed.class_queries_logits)
    assert closed.others_queries_logits is None and none.others_queries_logits.shape[-1] == 0


def test_the_loss_is_that_of_the_classes_alone():
    model, inputs = tiny_segmentation_model(), tiny_inputs(batch_size=1)
    others = inputs["class_embeds"].flip(-1)
    labels = torch.zeros(inputs["mask_proposals"].shape[:2], dtype=torch.long)
    outputs = model(**inputs, other_embeds=others, class_labels=labels)
    expected = torch.nn.functional.cross_entropy(outputs.logits_per_mask.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(outputs.loss, expected)


class TestEncoded:
    def test_others_unpack_beside_the_classes(self):
        model, processor = miniature()
        vocabulary = model.encode_vocabulary(processor, ASKED, others=OTHERS)
        assert vocabulary.id2label == dict(enumerate(["dog", "sky", "cat", "wall", "car"]))
        assert set(vocabulary) == {
            "class_embeds", "prompt_class_ids", "class_is_thing", "other_embeds", "prompt_other_ids", "other_is_thing"
        }  # fmt: skip
        assert vocabulary["prompt_other_ids"].tolist() == [0, 0, 1, 2]
        assert vocabulary["other_is_thing"].tolist() == [True, False, True]
        whole = model.encode_vocabulary(processor, ASKED | OTHERS)
        everything = vocabulary.everything
        assert everything.prompt_class_ids.tolist() == whole.prompt_class_ids.tolist() == [0, 0, 1, 2, 2, 3, 4]
        assert torch.equal(everything.class_embeds, whole.class_embeds)
        assert everything.class_is_thing.tolist() == whole.class_is_thing.tolist()

    @pytest.mark.parametrize("others", [None, [], (), {}, "Dogs, SKY", ["puppies"]])
    def test_without_others_there_are_none(self, others):
        model, processor = miniature()
        assert model.encode_vocabulary(processor, ASKED, others=others).others is None

    def test_others_come_from_files_too(self, tmp_path):
        model, processor = miniature()
        path = tmp_path / "others.txt"
        path.write_text("cat, kitten\ndog\nwall [stuff]\n")
        for given in (path, str(path)):
            names = model.encode_vocabulary(processor, ASKED, others=given).id2label
            assert names == dict(enumerate(["dog", "sky", "cat", "wall"]))
        with pytest.raises(FileNotFoundError, match="missing.txt"):
            model.encode_vocabulary(processor, ASKED, others="missing.txt")

    def test_others_of_a_generator_with_an_opinion_are_known_to_it(self):
        model, processor = miniature(ensemble_weight=0.5)
        model.mask_generator.config.id2label = {0: "wall-other-merged", 1: "sky-other-merged"}
        vocabulary = model.encode_vocabulary(processor, ASKED, others=OTHERS)
        assert vocabulary["generator_class_ids"].tolist() == [-1, 1]
        assert vocabulary["other_generator_class_ids"].tolist() == [-1, 0, -1]

    def test_one_that_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match="must name each of 0 to 1"):
            EncodedVocabulary(torch.zeros(2, 4), torch.tensor([0, 0]), class_is_thing=torch.tensor([True, False]))


class TestAutomatic:
    def names(self, model, processor, asked, *, others="auto"):
        vocabulary = model.encode_vocabulary(processor, asked, others=others)
        return [vocabulary.id2label[index] for index in sorted(vocabulary.id2label)][len(asked.split(", ")) :]

    def test_is_what_the_config_says(self):
        model, processor = miniature(default_others=["pump", "dog", "wall [stuff]"])
        assert self.names(model, processor, "dog, red zzz") == ["pump", "wall"]
        assert self.names(miniature()[0], processor, "dog") == []

    def test_knows_the_stored_words_and_the_generators(self):
        model, processor = miniature(default_others="known")
        model.mask_generator.config.id2label = {0: "LABEL_0", 1: "thing", 2: "stuff", 3: "wall-other-merged", 4: "dog"}
        assert self.names(model, processor, "tower") == ["wall", "dog"]
        model.set_vocabulary(processor, {"dog": ["puppy"], "pump": []})
        assert self.names(model, processor, "tower") == ["dog", "pump", "wall"]
        assert self.names(model, processor, "Puppies") == ["pump", "wall"]
        model.set_vocabulary(processor, "chair")
        assert self.names(model, processor, "tower") == ["chair", "wall", "dog"]
        model.set_vocabulary(processor, "chair", others=["sail", "seat"])
        assert self.names(model, processor, "tower") == ["chair", "sail", "seat", "wall", "dog"]

    def test_knows_everyday_words_by_default(self, texts_of_others_folder):
        assert FisaConfig().default_others == "everyday"
        model, processor = miniature(default_others="everyday")
        model.set_vocabulary(processor, "zzz pump")
        names = self.names(model, processor, "sailboat, grass")
        assert names[0] == "zzz pump" and len(names) > 500 and {"car", "sky"} <= set(names)
        assert not {"sailboat", "grass"} & set(names)

    def test_what_is_known_of_kinds_is_that_of_the_model_that_was_asked(self):
        for stored, is_known in (("pump [thing]", True), ("pump", False), ("pump [thing]", True)):
            model, processor = miniature(default_others="known")
            model.set_vocabulary(processor, stored)
            assert model.competition("dog, sky", "auto").others[0].kind_is_known == is_known

    def test_words_that_mean_a_class_speak_for_it(self):
        model, processor = miniature(default_others=["dog", "cat", "chair"])
        vocabulary = model.encode_vocabulary(processor, "animal, wall", others="auto")
        single = model.encode_vocabulary(processor, "animal, wall, dog, cat, chair")
        assert vocabulary.prompt_class_ids.tolist() == [0, 1, 0, 0]
        assert torch.equal(vocabulary.class_embeds, single.class_embeds[:4])
        assert torch.equal(vocabulary.others.class_embeds, single.class_embeds[4:])

    def test_is_encoded_once_and_kept_for_other_processes(self, texts_of_others_folder):
        options = {"default_others": ["pump", "sail", "wall [stuff]"], "seed": 7}
        model, processor = miniature(**options)
        before = set(texts_of_others_folder.rglob("*"))
        expected = model.encode_vocabulary(processor, "dog", others="auto")
        (folder,) = {path.parent for path in set(texts_of_others_folder.rglob("*.safetensors")) - before}
        again, _ = miniature(**options)
        encoded = []
        tower = again.fisa.text_model.forward
        again.fisa.text_model.forward = lambda *args, **kwargs: encoded.append(kwargs) or tower(*args, **kwargs)
        found = again.encode_vocabulary(processor, "dog", others="auto")
        # The word itself, twice: also to see that the encoder is the same. And one to compare with the file.
        assert sum(len(call["input_ids"]) for call in encoded) == 3
        for name in found:
            assert torch.equal(found[name], expected[name])
        assert len(list(folder.iterdir())) == 1

    def test_where_the_folder_cannot_be_written_one_warning_says_so(self, monkeypatch, tmp_path, caplog):
        blocked = tmp_path / "file"
        blocked.write_text("")
        monkeypatch.setattr("fisa.acceleration.class_text_files.constants.HF_HOME", str(blocked))
        model, processor = miniature(default_others=["pump"], seed=8)
        for words in ("dog", "cat"):
            assert self.names(model, processor, words) == ["pump"]
        other, _ = miniature(default_others=["pump"], seed=8)
        assert self.names(other, processor, "dog") == ["pump"]
        (warning,) = [record.message for record in caplog.records if "kept in memory" in record.message]
        assert "each process encodes them again" in warning

    def test_threads_encode_them_once(self):
        model, processor = miniature(default_others=[f"word {number}" for number in range(60)], seed=9)
        encoded, tower = [], model.fisa.text_model.forward
        model.fisa.text_model.forward = lambda *args, **kwargs: encoded.append(kwargs) or tower(*args, **kwargs)
        found = {}

        def encode(word):
            found[word] = model.encode_vocabulary(processor, word, others="auto")

        threads = [threading.Thread(target=encode, args=(word,)) for word in ("dog", "cat", "car", "cow")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert sum(len(call["input_ids"]) for call in encoded if len(call["input_ids"]) > 4) == 60
        first, *rest = found.values()
        assert all(torch.equal(first.others.class_embeds, vocabulary.others.class_embeds) for vocabulary in rest)


@pytest.fixture(scope="module")
def stored():
    model, processor = miniature(default_others=["cat", "kitten toy", "wall [stuff]"])
    model.set_vocabulary(processor, "animal, sky", others="auto")
    return model, processor


class TestStored:
    @torch.no_grad()
    def outputs(self, model, **vocabulary):
        pixel_values = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        masks = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(1))
        return model(pixel_values, mask_proposals=masks, **vocabulary)

    def test_is_used_without_words_and_saved_and_loaded(self, stored, tmp_path):
        model, processor = stored
        expected = self.outputs(model, **model.encode_vocabulary(processor, "animal, sky", others="auto"))
        assert expected.others_queries_logits.shape[-1] == 2
        model.save_pretrained(tmp_path)
        for loaded in (model, FisaForUniversalSegmentation.from_pretrained(tmp_path), copy.deepcopy(model)):
            found = self.outputs(loaded)
            assert torch.equal(found.class_queries_logits, expected.class_queries_logits)
            assert torch.equal(found.others_queries_logits, expected.others_queries_logits)
            assert loaded.config.all_labels == dict(enumerate(["animal", "sky", "kitten toy", "wall"]))
            assert loaded.config.id2label == {0: "animal", 1: "sky"} and loaded.config.synonyms == [[], []]

    def test_words_of_a_call_have_no_stored_others(self, stored):
        model, processor = stored
        assert self.outputs(model, **model.encode_vocabulary(processor, "dog")).others_queries_logits is None
        with_others = self.outputs(model, **model.encode_vocabulary(processor, "dog", others="cow, wall"))
        assert with_others.others_queries_logits.shape[-1] == 2

    def test_a_new_vocabulary_drops_them(self, stored, tmp_path):
        model, processor = copy.deepcopy(stored)
        model.set_vocabulary(processor, "dog")
        assert model.config.others is None and model.fisa.other_embeds is None
        model.save_pretrained(tmp_path)
        assert self.outputs(FisaForUniversalSegmentation.from_pretrained(tmp_path)).others_queries_logits is None

    def test_labels_at_loading_are_a_closed_set(self, stored, tmp_path):
        model, processor = stored
        for part in stored:
            part.save_pretrained(tmp_path)
        loaded = FisaForUniversalSegmentation.from_pretrained(tmp_path, id2label={0: "dog", 1: "cow"})
        assert loaded.config.others is None and self.outputs(loaded).others_queries_logits is None

    def test_an_adapter_carries_them_and_merging_keeps_them(self, stored, tmp_path):
        base, processor = miniature()
        adapted = get_simo_model(copy.deepcopy(base))
        adapted.get_base_model().set_vocabulary(processor, "animal, sky", others=["cat", "wall [stuff]"])
        expected = self.outputs(adapted.get_base_model())
        adapted.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
        with loaded.disable_adapter():
            assert loaded.get_base_model().config.others is None
        for model in (loaded.get_base_model(), loaded.merge_and_unload()):
            assert [entry["name"] for entry in model.config.others] == ["cat", "wall"]
            assert torch.equal(self.outputs(model).others_queries_logits, expected.others_queries_logits)

    def test_adapters_with_different_ones_are_not_active_together(self, tmp_path):
        base, processor = miniature()
        adapted = get_simo_model(copy.deepcopy(base))
        for name, others in {"one": ["cat"], "two": ["car"]}.items():
            adapted.get_base_model().set_vocabulary(processor, "animal, sky", others=others)
            adapted.save_pretrained(tmp_path / name)
        both = PeftModel.from_pretrained(base, tmp_path / "one", adapter_name="one")
        both.load_adapter(tmp_path / "two", adapter_name="two")
        with pytest.raises(ValueError, match='others "cat"\\).*others "car"\\) have different vocabularies'):
            both.base_model.set_adapter(["one", "two"])
        assert [entry["name"] for entry in both.get_base_model().config.others] == ["cat"]

    @pytest.mark.parametrize(
        "others",
        [
            [{"name": "cat"}],
            [{"name": "cat", "synonyms": "kitten", "is_thing": 1}],
            [{"name": 3, "synonyms": [], "is_thing": True}],
            [{"name": "cat", "synonyms": [], "is_thing": True, "speaks_for": 2}],
        ],
    )
    def test_damaged_ones_are_refused(self, others):
        words = {"id2label": {0: "a", 1: "b"}, "synonyms": [[], []], "is_thing": [True, True]}
        with pytest.raises(Exception, match="`others` holds .*must hold dictionaries"):
            FisaConfig(**words, others=others)
        with pytest.raises(Exception, match="no vocabulary is stored"):
            FisaConfig(others=[{"name": "cat", "synonyms": [], "is_thing": True}])
