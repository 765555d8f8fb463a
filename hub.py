"""Export for the Hub: weights, code that loads without the package (`trust_remote_code`), and a model card."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation, FisaModel
from fisa.processing.files import write_unless_edited
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.pipeline_fisa import FisaPipeline
from fisa.processing.processing_fisa import FisaProcessor


PACKAGE = "fisa"
MODEL_CLASSES = {
    "AutoConfig": FisaConfig,
    "AutoModel": FisaModel,
    "AutoModelForImageSegmentation": FisaForUniversalSegmentation,
    "AutoModelForUniversalSegmentation": FisaForUniversalSegmentation,
}
PROCESSOR_CLASSES = {"AutoProcessor": FisaProcessor, "AutoImageProcessor": FisaImageProcessor}

CARD = """
# {title}

FISA names the masks of a frozen mask generator with any words. Its classifier is a CLIP that sees the class texts
early and is adapted in a small, chosen part: Chng et al., *Adapting Vision-Language Model with Fine-grained Semantics
for Open-Vocabulary Segmentation*, [arXiv 2409.16278](https://arxiv.org/abs/2409.16278).

## Use

With any words of your own:

```python
from transformers import pipeline

segmenter = pipeline("{task}", model="{repo_id}", trust_remote_code=True)
for segment in segmenter("photo.jpg", candidate_labels=["dog", "frisbee", "grass"]):
    print(segment["label"], segment["score"], segment["mask"].size)
```
{stored_vocabulary}
With the package `fisa` installed, no code is fetched: after `import fisa`, the Auto classes load this model as it
is, and `pipeline("image-segmentation", model="{repo_id}", pipeline_class=fisa.FisaPipeline)` takes any words.

## Parts and licences

{parts}
"""

STORED_VOCABULARY = """
With the vocabulary that is stored in the model ({names}), by the stock pipeline:

```python
from transformers import pipeline

segmenter = pipeline("image-segmentation", model="{repo_id}", trust_remote_code=True)
print([segment["label"] for segment in segmenter("photo.jpg")])
```
"""


def export(
    model: FisaForUniversalSegmentation,
    processor: FisaProcessor,
    folder: str | PathLike,
    *,
    repo_id: str | None = None,
    base_models: Mapping[str, str] | None = None,
    license: str = "other",
) -> Path:
    """Write a folder that is ready for the Hub and loads anywhere, with this package or without.

    Args:
        model: saved as safetensors.
        processor: saved beside it.
        folder: where to write; made if it is missing.
        repo_id: the model's name on the Hub, for the card's examples; the folder itself if not given.
        base_models: the models that the weights come from, each with its licence
            (`{"openai/clip-vit-large-patch14-336": "mit"}`).
        license: licence of the weights as a whole, in the Hub's spelling.

    A `README.md` that is there is replaced only as long as nobody has edited it since an earlier export wrote it.

    Returns:
        `Path` of the folder.

    Raises:
        ValueError: the model has an adapter, of which no whole model can be saved.

    Example:

    ```python
    >>> from fisa.hub import export

    >>> export(model, processor, "my-fisa-on-the-hub", repo_id="me/my-fisa", license="mit").name
    'my-fisa-on-the-hub'
    ```
    """
    if getattr(model, "peft_config", None):
        raise ValueError(
            "This model has an adapter beside its own weights, and a whole model is exported: load the base, then "
            '`PeftModel.from_pretrained(base, "my-adapter").merge_and_unload()`; or what training wrote to `merged/`.'
        )
    folder = Path(folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_flat_code(folder, {*MODEL_CLASSES.values(), *PROCESSOR_CLASSES.values(), FisaPipeline})
    config = _read_json(folder / "config.json")
    config["auto_map"] = _auto_map(MODEL_CLASSES)
    config["custom_pipelines"] = {
        FisaPipeline.task: {
            "impl": _reference(FisaPipeline),
            "pt": ["AutoModelForUniversalSegmentation"],
            "type": "image",
        }
    }
    _write_json(folder / "config.json", config)
    processor_config = _read_json(folder / "processor_config.json")
    # Looked up in both places: by AutoProcessor in the outer one, by AutoImageProcessor in the inner one.
    for section in (processor_config, processor_config["image_processor"]):
        section["auto_map"] = _auto_map(PROCESSOR_CLASSES)
    _write_json(folder / "processor_config.json", processor_config)
    card = model_card(model, repo_id=repo_id or str(folder), base_models=base_models or {}, license=license)
    write_unless_edited(folder / "README.md", str(card))
    return folder


def model_card(
    model: FisaForUniversalSegmentation, *, repo_id: str, base_models: Mapping[str, str], license: str
) -> ModelCard:
    """The model's README: metadata that the Hub reads, usage that works when pasted, licences of the parts."""
    metadata = ModelCardData(
        pipeline_tag="image-segmentation",
        library_name="transformers",
        license=license,
        base_model=list(base_models) or None,
        tags=["fisa", "open-vocabulary", "panoptic-segmentation"],
    )
    names = list((model.config.id2label or {}).values())
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    stored = STORED_VOCABULARY.format(names=shown, repo_id=repo_id) if names else ""
    parts = [f"- `{name}`: {part_license}" for name, part_license in base_models.items()]
    body = CARD.format(
        title=Path(repo_id).name,
        task=FisaPipeline.task,
        repo_id=repo_id,
        stored_vocabulary=stored,
        parts="\n".join([*parts, f"- the weights as a whole: {license}", "- the code: apache-2.0"]),
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n{body}")


def write_flat_code(folder: Path, classes: Iterable[type]) -> None:
    """Copy the modules that `classes` need into one flat folder, their imports of each other made relative.

    transformers fetches remote code from one folder only, and would not follow imports between packages.

    Raises:
        `ValueError`: two modules have the same file name.
    """
    sources: dict[str, tuple[str, str]] = {}
    pending = [cls.__module__ for cls in classes]
    while pending:
        module = pending.pop()
        name = module.rpartition(".")[2]
        if name in sources:
            if (other := sources[name][0]) != module:
                raise ValueError(f"{other} and {module} would both be {name}.py in one folder; rename one.")
            continue
        sources[name] = module, _source(module)
        pending += _own_imports(sources[name][1])
    for name, (_, source) in sources.items():
        absolute = rf"^(\s*)from {PACKAGE}\.(?:\w+\.)*(\w+) import"
        code = re.sub(absolute, r"\1from .\2 import", source, flags=re.MULTILINE)
        (folder / f"{name}.py").write_text(code, encoding="utf-8")


def _source(module: str) -> str:
    """Read, not imported: what it imports may be an extra."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _own_imports(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return [module for module in modules if module.startswith(f"{PACKAGE}.")]


def _reference(cls: type) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _auto_map(classes: Mapping[str, type]) -> dict[str, str]:
    return {auto_class: _reference(cls) for auto_class, cls in classes.items()}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
