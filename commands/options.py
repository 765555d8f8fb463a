"""What the command lines share: options, and the types that check their values."""

import argparse
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import HfHubHTTPError, HFValidationError, httpx
from safetensors import SafetensorError
from transformers.utils import PROCESSOR_NAME, cached_file

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.pretrained import patchwork, presets
from fisa.processing.class_names import is_file_name
from fisa.processing.one_line_parser import IN_QUOTES
from fisa.processing.others import SETTINGS
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import Vocabulary


T = TypeVar("T")

HUB_TIMEOUT = 10  # seconds
TRIAL_BYTES = 4096
STANDARD_OUTPUT = "-"
FETCHED = '--exclude "*.h5" --exclude "*.msgpack"'  # weights for other frameworks
NO_CLASSES = "This model stores no classes of its own; name some with --labels or --labels-file."


def add_vocabulary_options(group: argparse._ActionsContainer) -> None:
    """The options by which a command takes its classes, as `vocabulary`: `None` if it was given none."""
    group.add_argument(
        "--labels",
        type=_labels,
        dest="vocabulary",
        metavar="WORDS",
        help="the classes, with commas between (default: those stored in the model)",
    )
    group.add_argument(
        "--labels-file",
        type=_labels_of_file,
        dest="vocabulary",
        metavar="FILE",
        help="a .txt or .json file with the classes",
    )


def add_others_option(parser: argparse._ActionsContainer, *, default: str) -> None:
    """The option by which a command takes the words that compete, as an argument by name: none if it was not given."""
    parser.add_argument(
        "--others",
        type=_others,
        default={},
        metavar="WORDS",
        help="words that compete with the classes and are left out of the result: names with commas between, a .txt "
        f"or .json file of them, auto (everyday words, and those that the model knows) or none (default: {default})",
    )


def _labels(text: str) -> Vocabulary:
    if is_file_name(text):
        raise argparse.ArgumentTypeError(
            f'"{text}" reads like the name of a file: give files to --labels-file, or say that it is a word: '
            f'"{text} [thing]"'
        )
    if text.rstrip().endswith(","):
        raise argparse.ArgumentTypeError(f'"{text}" ends with a comma. {IN_QUOTES}')
    return refused_in_a_line(Vocabulary.parse, text)


def _labels_of_file(text: str) -> Vocabulary:
    return refused_in_a_line(Vocabulary.from_file, text)


def _others(text: str) -> dict[str, Any]:
    setting = text.strip().casefold()
    if setting in ("auto", "none"):
        return {"others": None if setting == "none" else setting}
    if setting in SETTINGS:
        raise argparse.ArgumentTypeError(
            f'"{text}" is neither auto nor none; say "{text} [thing]" if it is meant as a word'
        )
    return {"others": _labels_of_file(text) if is_file_name(text) else refused_in_a_line(Vocabulary.parse, text)}


def refused_in_a_line(read: Callable[[str], T], text: str) -> T:
    """What `read` makes of an option's text, its errors being the option's.

    Raises:
        argparse.ArgumentTypeError: `read` raised an error.
    """
    try:
        return read(text)
    except (OSError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def print_any_name() -> None:
    """Let standard output spell out what it has no characters for: names of files may be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def number_type(kind: Callable[[str], float], is_right: Callable[[float], bool], rule: str) -> Callable[[str], float]:
    """A number as the type of an argument; `rule` says which ones are right."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not is_right(number):
            raise argparse.ArgumentTypeError(f"{text} is not {rule}")
        return number

    return read


def stored_vocabulary(config: FisaConfig) -> Vocabulary:
    """The classes that a model stores.

    Raises:
        ValueError: it stores none.
    """
    if not config.num_prompts:
        raise ValueError(NO_CLASSES)
    return Vocabulary.parse(config.vocabulary)


def refuse_preset_alone(model: str | None) -> None:
    """Refuse a preset where stored classes are looked for, before it is downloaded.

    Raises:
        ValueError: the model is a preset.
    """
    if presets.preset_of(model):
        raise ValueError(NO_CLASSES)


def model_name(text: str) -> str:
    """The folder or Hub name of a FISA model or adapter, or a preset, as the type of an argument.

    Raises:
        argparse.ArgumentTypeError: a file, a folder that holds neither, or a name that nothing can be loaded by.
    """
    _refuse_blank(text, "the folder or Hub name of a model")
    folder = Path(text)
    if preset := presets.preset_of(text):
        missing = presets.missing_parts(preset)
        _find_on_hub(
            missing, otherwise=f"{text} cannot be put together: not downloaded before are {' and '.join(missing)}"
        )
        return text
    if (folder / "adapter_config.json").is_file():
        _check_base(folder)
    elif folder.is_dir():
        if not (folder / "config.json").is_file():
            raise argparse.ArgumentTypeError(
                f"{text} is not a model: it has no file named config.json or adapter_config.json. Name the folder "
                "that save_pretrained or fisa-train wrote"
            )
        if (model_type := _setting(folder / "config.json", "model_type")) != "fisa":
            raise argparse.ArgumentTypeError(
                f"{text} is a model of type {model_type!r}, not of FISA. A CLIP and a mask generator are put together "
                "by FisaForUniversalSegmentation.from_clip_and_mask_generator, or fisa-train --clip --mask_generator"
            )
        _refuse_damaged_processor(folder)
    elif folder.is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file: name the folder of a model")
    return loadable_name(text)


def _check_base(adapter: Path) -> None:
    """Refuse an adapter whose base was a folder that is no longer there, or holds another kind of model now."""
    config = adapter / "adapter_config.json"
    base = _setting(config, "base_model_name_or_path")
    if (adapter / "config.json").is_file():
        return
    what_to_do = (
        f"Name the base's folder as base_model_name_or_path in {config}, or use the merged model that training leaves"
    )
    if not base or (os.path.isabs(base) and not os.path.isdir(base)):
        raise argparse.ArgumentTypeError(
            f"{adapter} is an adapter, and its base is not where it was: {base}. {what_to_do}"
        )
    base_config = Path(base, "config.json")
    if base_config.is_file() and (model_type := _setting(base_config, "model_type")) != "fisa":
        raise argparse.ArgumentTypeError(
            f"{adapter} is an adapter, and its base {base} is a model of type {model_type!r}, not of FISA. "
            f"{what_to_do}"
        )


def _setting(config: Path, name: str) -> Any:
    """One setting of a file of JSON."""
    try:
        return json.loads(config.read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"{config} cannot be read: {error}") from error


def load_parts(folder: str | None, *, dtype: torch.dtype | str) -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """Model and processor of a folder, Hub name or preset, or those that come with the package; `"auto"`: as stored.

    Raises:
        `OSError` or `ValueError`: they cannot be loaded.
    """
    if folder is None:
        model, processor = patchwork.load()
        if not isinstance(dtype, str):
            model.to(dtype)  # type: ignore[arg-type]  # transformers wraps it without its types
        return model, processor
    try:
        if presets.preset_of(folder):
            return presets.load(folder, dtype=dtype)
        model = FisaForUniversalSegmentation.from_pretrained(folder, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"the weights of {folder} are damaged, or were cut short: {error}") from error
    # PEFT saves an adapter without a processor; then its base's is the right one.
    has_processor = cached_file(folder, PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False) is not None
    return model, FisaProcessor.from_pretrained(folder if has_processor else model.config.name_or_path)


def _refuse_damaged_processor(folder: Path) -> None:
    """Refuse settings that transformers would choke on before it knows whose they are."""
    if (folder / PROCESSOR_NAME).is_file():
        try:
            FisaProcessor.get_processor_dict(folder)
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error


def loadable_name(text: str) -> str:
    """The folder or Hub name of any model, as the type of an argument. The Hub is asked once: loading from a name that
    cannot be reached would try again for a minute.

    Raises:
        argparse.ArgumentTypeError: there is no such folder, and the Hub has none of the name or cannot be reached.
    """
    if Path(text).exists():
        return text
    try:
        configs = [try_to_load_from_cache(text, name) for name in ("config.json", "adapter_config.json")]
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is not a folder, a name that the Hub could know, or a preset: {', '.join(presets.PRESETS)}"
        ) from error
    if not any(isinstance(path, str) for path in configs):
        _find_on_hub([text], otherwise=f"{text} is not a folder, was not downloaded before")
    return text


def _find_on_hub(names: Sequence[str], *, otherwise: str) -> None:
    """Refuse names of which the Hub has none, or that it cannot be asked for; `otherwise` begins the sentence."""
    try:
        for name in names:
            HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except HfHubHTTPError as error:
        raise argparse.ArgumentTypeError(
            f"{otherwise}, and the Hub has no model {name} for you (status {error.response.status_code})"
        ) from error
    except (OfflineModeIsEnabled, httpx.HTTPError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        fetching = " && ".join(f"hf download {name} {FETCHED}" for name in names)
        raise argparse.ArgumentTypeError(
            f"{otherwise}, and the Hub cannot be reached ({reason}). Where there is a network, run: {fetching}; then "
            f"copy what it put into ~/.cache/huggingface/hub to {constants.HF_HUB_CACHE}"
        ) from error


def output_folder(text: str) -> Path:
    """A folder to write to, which may not exist yet, as the type of an argument.

    Raises:
        argparse.ArgumentTypeError: it is a file, or nothing can be written to it, its disk being full for example.
    """
    _refuse_blank(text, "a folder for the results")
    nearest = existing_part(text)
    try:
        with tempfile.TemporaryFile(dir=nearest) as trial:  # permissions say nothing of full or read-only disks
            trial.write(b" " * TRIAL_BYTES)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written to: {error.strerror}") from error
    return Path(text)


def _refuse_blank(text: str, what: str) -> None:
    """Refuse what a shell makes of a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"it is empty; name {what}")


def output_place(text: str) -> Path | str:
    """A folder to write to or "-", standard output, as the type of an argument; see [`output_folder`]."""
    return text if text == STANDARD_OUTPUT else output_folder(text)


def existing_part(text: str) -> Path:
    """What exists already of a folder and those around it.

    Raises:
        argparse.ArgumentTypeError: it is a file.
    """
    folder = Path(text)
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{nearest} is a file; name a folder")
    return nearest


def available_device(text: str) -> torch.device:
    """A device that PyTorch can use on this machine, as the type of an argument.

    Raises:
        argparse.ArgumentTypeError: this machine has no such device, or PyTorch knows none of that name.
    """
    try:
        device = torch.device(text)
        torch.zeros(1, device=device).item()
    # A PyTorch that was built without CUDA asserts that it has it, and other devices have no operators.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        there = "cpu" if accelerator is None else f"cpu and {accelerator.type}"
        raise argparse.ArgumentTypeError(
            f"{text} cannot be used here: this PyTorch, {torch.__version__}, finds {there}. Name one of these, or "
            "leave --device out"
        ) from error
    return device
