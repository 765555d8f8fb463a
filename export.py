"""Take a model out of Python: `python -m fisa.export [MODEL]` writes one graph for ONNX Runtime or `torch.export`.

The graph is made for photos of one size, in batches of any size, and does what the model does but for cutting off
padding, of which there is none: the processor that is saved beside it squashes photos for the mask generator, too.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from filecmp import cmp
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.processing.extras import library
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import Vocabulary


FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
WEIGHTS = ("*.safetensors", "*.bin")
PHOTOS = ("pixel_values", "mask_generator_pixel_values")
Compute = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
ANSWERED = ("input_ids", "class_embeds", "other_embeds", "mask_proposals")  # they would change a model's answers
# The last one only of graphs in which others compete.
OUTPUTS = ("class_queries_logits", "masks_queries_logits", "objectness", "others_queries_logits")


class Graph(nn.Module):
    """What is exported: tensors in by name, tensors out by name, photos without padding."""

    def __init__(self, model: FisaForUniversalSegmentation):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: torch.Tensor,
        mask_generator_pixel_values: torch.Tensor,
        class_embeds: torch.Tensor | None = None,
        prompt_class_ids: torch.Tensor | None = None,
        class_is_thing: torch.Tensor | None = None,
        class_kinds: torch.Tensor | None = None,
        generator_class_ids: torch.Tensor | None = None,
        other_embeds: torch.Tensor | None = None,
        prompt_other_ids: torch.Tensor | None = None,
        other_is_thing: torch.Tensor | None = None,
        other_kinds: torch.Tensor | None = None,
        other_generator_class_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        outputs = self.model(
            pixel_values,
            mask_generator_pixel_values,
            class_embeds=class_embeds,
            prompt_class_ids=prompt_class_ids,
            class_is_thing=class_is_thing,
            class_kinds=class_kinds,
            generator_class_ids=generator_class_ids,
            other_embeds=other_embeds,
            prompt_other_ids=prompt_other_ids,
            other_is_thing=other_is_thing,
            other_kinds=other_kinds,
            other_generator_class_ids=other_generator_class_ids,
        )
        return {name: outputs[name] for name in OUTPUTS if name in outputs}


@torch.no_grad()
def export_program(
    model: FisaForUniversalSegmentation, processor: FisaProcessor, *, open_vocabulary: bool = False
) -> ExportedProgram:
    """Trace a model for batches of any size.

    Args:
        model ([`FisaForUniversalSegmentation`]): with a mask generator.
        processor ([`FisaProcessor`]): says how large photos are; see [`without_padding`].
        open_vocabulary (`bool`):
            The classes are inputs, any number of them, as `model.encode_vocabulary` gives them: `class_embeds`
            `(num_prompts, projection_dim)`, `prompt_class_ids` `(num_prompts,)`, `class_is_thing` `(num_classes,)`
            and, where the generator is asked, `class_kinds` and `generator_class_ids` `(num_classes,)`; and the same
            of the others, of which there may be none: `other_embeds` and so on. Else the stored vocabulary is built
            in, with its others.

    Returns:
        `torch.export.ExportedProgram` from `pixel_values` and `mask_generator_pixel_values` `(batch_size, 3, …)` to
        `class_queries_logits`, `masks_queries_logits`, `objectness` and, with others, `others_queries_logits`, as in
        [`FisaOutput`]. Post-processing leaves void what others win, as it does with the model's outputs.

    Raises:
        `ValueError`: no mask generator, no stored vocabulary to build in, or a model that cannot be traced.

    Example:

    ```python
    >>> program = export_program(model, processor)
    >>> path = save(program, model, processor, "my-graph", file_format="torch")
    ```
    """
    if model.mask_generator is None:
        raise ValueError("This model has no mask generator; only whole models, from photos to masks, can be exported.")
    if not open_vocabulary and not model.config.num_prompts:
        raise ValueError(
            "This model stores no classes of its own; name some with --labels or --labels-file, "
            "or export it with --open."
        )
    # Tracing takes 0 and 1 for constants and equal numbers for the same one: none of that in the example.
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    photos = without_padding(processor, model)(images=[black, black], return_tensors="pt")
    inputs = {name: photos[name].to(model.device, model.dtype) for name in PHOTOS}
    sizes = dict.fromkeys(inputs, {0: Dim("batch", min=1)})
    if open_vocabulary:
        words, rivals = {"dog": ["puppy", "hound"], "cat": [], "grass": []}, {"sky": ["clouds"], "wall": []}
        example = model.encode_vocabulary(processor, words, others=Vocabulary.parse(rivals))
        counts = {5: Dim("prompts", min=1), 3: Dim("classes", min=1)}
        other_counts = {3: Dim("other_prompts"), 2: Dim("others")}
        inputs |= example
        sizes |= {name: {0: (other_counts if "other" in name else counts)[len(example[name])]} for name in example}
    try:
        with _constant_switches(model.mask_generator), _quiet_libraries():
            program = torch.export.export(Graph(model).eval(), (), inputs, dynamic_shapes=sizes, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        generator = type(model.mask_generator).__name__
        raise ValueError(f"This model, with {generator} for its mask generator, cannot be traced: {reason}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


@contextmanager
def _constant_switches(generator: PreTrainedModel) -> Iterator[None]:
    """EoMT's switches of its mask attention as numbers: EoMT branches on them, which a trace cannot with a buffer."""
    switches = dict(generator.named_buffers(recurse=False)).get("attn_mask_probs")
    if switches is not None:
        vars(generator)["attn_mask_probs"] = switches.tolist()  # found before the buffer
    try:
        yield
    finally:
        vars(generator).pop("attn_mask_probs", None)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Without what torch and onnxscript say of themselves: of operations that no graph of ours has, of their own
    deprecated calls."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def without_padding(processor: FisaProcessor, model: FisaForUniversalSegmentation) -> FisaProcessor:
    """A processor that squashes photos to one square for the mask generator instead of putting them on a canvas, and
    has no proposal read again: which one would be depends on the photo, and a graph does the same for all.

    The square is the generator's own `image_size` where that is fixed (EoMT), else has the shortest edge for its side.
    One that does so already is returned as it is.
    """
    size, zoom = (getattr(processor.image_processor, name) for name in ("mask_generator_size", "zoom"))
    if size.height and not zoom:
        return processor
    settings = processor.image_processor.to_dict() | {"zoom": 0}
    if not size.height:
        generator = model.mask_generator
        side = (generator is not None and getattr(generator.config, "image_size", None)) or size.shortest_edge
        settings["mask_generator_size"] = {"height": side, "width": side}
    return FisaProcessor(
        image_processor=type(processor.image_processor).from_dict(settings),
        tokenizer=processor.tokenizer,
        prompt_templates=processor.prompt_templates,
    )


def check_export(
    model: FisaForUniversalSegmentation,
    processor: FisaProcessor,
    folder: str | PathLike,
    *,
    file_format: str = "onnx",
    eight_bits: bool = False,
) -> None:
    """Refuse what [`save`] would refuse, before the model is traced, which takes a while.

    Args:
        model, processor: of the graph, with the words that it is to have.
        folder, file_format, eight_bits: as for [`save`].

    Raises:
        `ValueError`: a file in the folder's place; another format than `"onnx"` and `"torch"`, or ONNX for a model
            with a `classifier_dtype`, which ONNX Runtime does not take; or eight bits in another format than ONNX; or
            a folder that holds a model, or a graph of the other format that was made with other words or settings.
        `ImportError`: the extra `export` is not installed, and the format is ONNX.

    Example:

    ```python
    >>> check_export(model, processor, "my-graph", file_format="torch")
    ```
    """
    _refuse_format(model, file_format, eight_bits=eight_bits)
    with TemporaryDirectory() as settings:
        _save_settings(model, processor, Path(settings), beside=Path(folder, FILES[file_format]))


def _refuse_format(model: FisaForUniversalSegmentation, file_format: str, *, eight_bits: bool) -> None:
    if file_format not in FILES:
        raise ValueError(f"`file_format` was {file_format!r}; it must be one of {', '.join(FILES)}.")
    if eight_bits and file_format != "onnx":
        raise ValueError(f"Only ONNX graphs take weights of eight bits; the format is {file_format!r}.")
    if file_format == "onnx":
        library("onnxscript", extra="export", purpose="ONNX")
        if model.config.classifier_dtype is not None:
            raise ValueError(
                f"`classifier_dtype` is {model.config.classifier_dtype!r} in this model's config, and an ONNX graph "
                "has one precision. Set it to None there, or export for torch."
            )


def save(
    program: ExportedProgram,
    model: FisaForUniversalSegmentation,
    processor: FisaProcessor,
    folder: str | PathLike,
    *,
    file_format: str = "onnx",
    eight_bits: bool = False,
) -> Path:
    """Write the graph and, beside it, the processor and the config that belong to it; returns the graph's path.

    After an error the folder is what it was before: absent, if it was not there.

    Args:
        program (`torch.export.ExportedProgram`): of `export_program`, for this model and processor.
        folder (`str` or `os.PathLike`): made if it is not there. Other files in it stay.
        file_format (`"onnx"` or `"torch"`): `model.onnx`, or `model.pt2` for `torch.export.load`.
        eight_bits (`bool`):
            Round the weights of matrix products to 8 bits, and what is multiplied with them as it comes. ONNX alone.

    Raises:
        `ValueError` or `ImportError`: see [`check_export`]; or the model has other words than when it was traced.

    Example:

    ```python
    >>> save(export_program(model, processor), model, processor, "my-graph", file_format="torch").name
    'model.pt2'
    ```
    """
    _refuse_format(model, file_format, eight_bits=eight_bits)
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
        _save_settings(model, processor, Path(unfinished), beside=folder / FILES[file_format])
        graph = Path(unfinished, FILES[file_format])
        _save_graph(program, graph)  # which refuses what is not a program
        _refuse_other_words(program, model)
        if eight_bits:
            round_to_eight_bits(graph, graph)
        folder.mkdir(exist_ok=True)
        for file in Path(unfinished).iterdir():
            file.replace(folder / file.name)
    return folder / FILES[file_format]


def _save_settings(
    model: FisaForUniversalSegmentation, processor: FisaProcessor, folder: Path, *, beside: Path
) -> None:
    """Write what belongs to a graph, unless the graph's folder holds what would contradict it."""
    if beside.parent.is_file():
        raise ValueError(f"{beside.parent} is a file; name a folder.")
    without_padding(processor, model).save_pretrained(folder)
    model.config.save_pretrained(folder)
    _refuse_other_settings(folder, graph=beside)


def _refuse_other_settings(settings: Path, *, graph: Path) -> None:
    """A model, or a graph of the other format, would be left with the words and photo sizes of this graph; and a
    config without a graph is somebody's own."""
    folder = graph.parent
    others = [file.name for pattern in WEIGHTS for file in sorted(folder.glob(pattern))]
    others += [name for name in FILES.values() if name != graph.name and (folder / name).exists()]
    differing = [
        file.name
        for file in sorted(settings.iterdir())
        if file.is_file() and not ((folder / file.name).is_file() and cmp(folder / file.name, file, shallow=False))
    ]
    if not others and not graph.exists():
        others = [name for name in differing if (folder / name).exists()]
    if others and differing:
        raise ValueError(
            f"{folder} holds a {others[0]} whose words or settings are not those of this graph: name another folder, "
            "or delete it."
        )


def _refuse_other_words(program: ExportedProgram, model: FisaForUniversalSegmentation) -> None:
    """The config beside a graph names the classes that are built into it. An open graph has none."""
    if "class_embeds" in program.graph_signature.user_inputs:
        return
    for name in ("class_embeds", "other_embeds"):
        built_in, stored = program.state_dict.get(f"model.fisa.{name}"), getattr(model.fisa, name)
        if built_in is not None and not (stored is not None and _are_same_texts(built_in, stored)):
            raise ValueError("The model has other words now than when it was traced: export it again.")


def _are_same_texts(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for rounding."""
    return one.shape == other.shape and torch.allclose(one.float().cpu(), other.float().cpu(), atol=1e-3)


def _save_graph(program: ExportedProgram, path: Path) -> None:
    if path.name == FILES["onnx"]:
        _save_onnx(program, path)
    else:
        torch.export.save(program, path)


@torch.no_grad()  # as it was traced: operations that record gradients come apart in another way
def _save_onnx(program: ExportedProgram, path: Path) -> None:
    with _quiet_libraries():
        graph = torch.onnx.export(program, dynamo=True, verbose=False)
    assert graph is not None  # as always from a traced program
    for value, name in zip(graph.model.graph.outputs, OUTPUTS):
        value.name = name
    for node in graph.model.graph:
        node.metadata_props.clear()  # paths of this machine
    graph.save(path)


def round_to_eight_bits(graph: Path, rounded: Path) -> None:
    """Round the weights of an ONNX graph's matrix products to eight bits, those of each column by a scale of its own,
    and at run time what is multiplied with them, as it comes.

    Products with other weights than matrices stay as they are: ONNX Runtime has no such scales for them.

    Args:
        graph (`Path`): a file that [`save`] wrote.
        rounded (`Path`): the file to write; it may be the same.

    Example:

    ```python
    >>> round_to_eight_bits(Path("my-graph/model.onnx"), Path("my-graph/model_int8.onnx"))
    ```
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, products = onnx.load(graph), ["MatMul", "Gemm"]
    matrices = {weight.name for weight in whole.graph.initializer if len(weight.dims) == 2}
    others = [node.name for node in whole.graph.node if node.op_type in products and matrices.isdisjoint(node.input)]
    quantize_dynamic(
        whole,
        rounded,
        op_types_to_quantize=products,
        nodes_to_exclude=others,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    if rounded == graph:
        graph.with_name(f"{graph.name}.data").unlink(missing_ok=True)  # large graphs had their weights there


def load_graph(path: str | PathLike) -> Callable[..., FisaOutput]:
    """A function that runs an exported graph as the model itself is called: `graph(**inputs)`.

    An open graph goes without others where none are given. The vocabulary that is given, or the config beside a graph
    that has it built in, says which classes are things.

    Args:
        path (`str` or `os.PathLike`): a `model.onnx` or a `model.pt2`, or the folder of one of them.

    Raises:
        `FileNotFoundError`: there is no such file.
        `ValueError`: another kind of file, or a folder with both.

    Example:

    ```python
    >>> path = save(export_program(model, processor), model, processor, "my-graph", file_format="torch")
    >>> graph, processor = load_graph("my-graph"), FisaProcessor.from_pretrained("my-graph")
    >>> outputs = graph(**processor(images=photo, return_tensors="pt"))
    >>> (segmentation,) = processor.post_process_segmentation(outputs, target_sizes=[photo.size[::-1]])
    >>> segmentation.size == photo.size
    True
    ```
    """
    path = _graph_file(Path(path))
    names, compute = _load_onnx(path) if path.suffix == ".onnx" else _load_torch(path)
    config = FisaConfig.from_pretrained(path.parent)
    stored = {"class_is_thing": config.is_thing, "other_is_thing": [entry["is_thing"] for entry in config.rivals]}
    is_open = "class_embeds" in names

    def graph(**inputs: Any) -> FisaOutput:
        if unused := [name for name in ANSWERED if inputs.get(name) is not None and name not in names]:
            words = "words come from `model.encode_vocabulary`" if is_open else "words are built in"
            raise TypeError(f"{path} takes no {', '.join(unused)}: masks are its own, and {words}.")
        if "class_embeds" in inputs and "other_embeds" not in inputs:
            inputs |= _alone(inputs, names)
        if missing := [name for name in names if name not in inputs]:
            raise TypeError(f"{path} needs {', '.join(missing)} as well; it was given {', '.join(inputs)}.")
        if not torch.as_tensor(inputs.get("mask_generator_pixel_mask", True)).all():
            raise ValueError(f"{path} reads photos without padding: take the processor from the graph's folder.")
        if inputs.get("photos"):
            hint = "Take the processor from the graph's folder, or call yours with `zoom=0`."
            raise ValueError(f"{path} reads each proposal once, and `zoom` asks for a second time. {hint}")
        outputs = compute({name: inputs[name] for name in names})
        kinds = {name: inputs[name] if is_open else torch.tensor(kinds) for name, kinds in stored.items()}
        batch_size, has_others = len(outputs["objectness"]), len(kinds["other_is_thing"]) > 0
        return FisaOutput(
            class_queries_logits=outputs["class_queries_logits"],
            masks_queries_logits=outputs["masks_queries_logits"],
            objectness=outputs["objectness"],
            class_is_thing=kinds["class_is_thing"].expand(batch_size, -1),
            others_queries_logits=outputs["others_queries_logits"] if has_others else None,
            other_is_thing=kinds["other_is_thing"].expand(batch_size, -1) if has_others else None,
            photo_orientation=inputs.get("photo_orientation"),
        )

    return graph


def _alone(inputs: Mapping[str, torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The inputs of an open graph that stand for no others. One text is said twice: torch's graphs begin at two."""
    none = {
        "other_embeds": inputs["class_embeds"][:0],
        "prompt_other_ids": torch.zeros(0, dtype=torch.int64),
        "other_is_thing": torch.zeros(0, dtype=torch.bool),
        "other_kinds": torch.zeros(0, dtype=torch.int64),
        "other_generator_class_ids": torch.zeros(0, dtype=torch.int64),
    }
    twice = [name for name in ("class_embeds", "prompt_class_ids") if len(inputs["class_embeds"]) == 1]
    given = none | {name: torch.cat([inputs[name]] * 2) for name in twice}
    return {name: tensor for name, tensor in given.items() if name in names}


def _graph_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file or folder.")
        if path.suffix not in (".onnx", ".pt2"):
            raise ValueError(f"{path} is not a graph; name a {' or a '.join(FILES.values())}, or its folder.")
        return path
    files = [path / name for name in FILES.values() if (path / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{path} holds neither {' nor '.join(FILES.values())}; `fisa-export` writes them.")
    if len(files) > 1:
        raise ValueError(f"{path} holds both {' and '.join(FILES.values())}; name the one to load.")
    return files[0]


def _load_onnx(path: Path) -> tuple[list[str], Compute]:
    onnxruntime = library("onnxruntime", extra="export", purpose="ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    outputs = [value.name for value in session.get_outputs()]

    def compute(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        arrays = session.run(outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        return dict(zip(outputs, map(torch.from_numpy, arrays)))

    return [value.name for value in session.get_inputs()], compute


def _load_torch(path: Path) -> tuple[list[str], Compute]:
    program = torch.export.load(path)
    module = program.module()

    @torch.no_grad()
    def compute(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return module(**inputs)

    return list(program.graph_signature.user_inputs), compute


if __name__ == "__main__":
    from fisa.commands.export import main

    sys.exit(main())
