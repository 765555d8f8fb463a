"""The model card of a fine-tuned adapter: how to load it, what was trained, and what the evaluation found."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from peft import PeftModel


CARD = """
# {title}

A FISA adapter: open-vocabulary segmentation with a frozen mask generator and a CLIP that is adapted in a small, chosen
part ({trained:,} of {all:,} parameters). The method is that of Chng et al., *Adapting Vision-Language Model with
Fine-grained Semantics for Open-Vocabulary Segmentation*, [arXiv 2409.16278](https://arxiv.org/abs/2409.16278).

## Use

With the package `fisa` and `peft` installed:

```python
import fisa
from transformers import pipeline

segmenter = pipeline("image-segmentation", model="{repo_id}", pipeline_class=fisa.FisaPipeline)
segmenter("photo.jpg", candidate_labels=["dog", "frisbee", "grass"])
```

The words that it was trained on come with it, and serve where `candidate_labels` are not given. PEFT loads it too:
`PeftModel.from_pretrained(base_model, "{repo_id}")`, or, as it imports of strangers only what it is allowed to,
`AutoPeftModel.from_pretrained("{repo_id}", import_allowlist=["fisa.modeling_fisa.modeling_fisa"])`.

The base model is `{base}`.

## Training

{training}

## Evaluation

{evaluation}
"""


def adapter_card(
    model: PeftModel,
    *,
    repo_id: str,
    report: dict[str, Any] | None,
    results: dict[str, float],
    log_history: list[dict[str, Any]],
) -> ModelCard:
    """The card of an adapter.

    Args:
        model: with the adapter in it.
        repo_id: its name on the Hub, or its folder.
        report: of an evaluation, from [`Evaluator.evaluate`]; `None`: there was none.
        results: the evaluation's figures by name, in percent.
        log_history: of the Trainer.
    """
    config = model.peft_config[model.active_adapter]
    base = public_name(config.base_model_name_or_path)
    trained, total = model.get_nb_trainable_parameters()
    name = repo_id.rpartition("/")[2]
    metadata: dict[str, Any] = {}
    if report is not None:
        metadata["model_name"] = name
        metadata["eval_results"] = [
            EvalResult(
                task_type="image-segmentation",
                dataset_type=report["data"],
                dataset_name=report["data"],
                metric_type=metric,
                metric_name=metric,
                metric_value=round(value, 4),
            )
            for metric, value in results.items()
        ]
    data = ModelCardData(
        pipeline_tag="image-segmentation",
        library_name="peft",
        base_model=base,
        tags=["fisa", "open-vocabulary", "panoptic-segmentation"],
        **metadata,
    )
    body = CARD.format(
        title=name,
        trained=trained,
        all=total,
        repo_id=repo_id,
        base=base,
        training=_training(log_history),
        evaluation=_evaluation(report, results),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")


def public_name(source: str) -> str:
    """What others call a data set or a model: its name on the Hub, or its folder without the path to it."""
    return Path(source).resolve().name if Path(source).exists() else source


def _training(log_history: list[dict[str, Any]]) -> str:
    losses = [entry for entry in log_history if "loss" in entry]
    if not losses:
        return "None in this run."
    first, last = losses[0], losses[-1]
    return f"Loss {first['loss']:.4f} at step {first['step']}, {last['loss']:.4f} at step {last['step']}."


def _evaluation(report: dict[str, Any] | None, results: dict[str, float]) -> str:
    if report is None:
        return "None in this run."
    oracle = "" if report["oracle"] == "none" else f", with a perfect {report['oracle']} (see `--oracle`)"
    known = f", {report['trained_on']} of which it was trained on" if "trained_on" in report else ""
    rows = [f"| {name} | {value:.2f} |" for name, value in results.items()]
    of_what = f"On {report['num_images']} photos of {report['data']}{known}{oracle}, in percent:"
    return "\n".join([of_what, "", "| | |", "|---|---|", *rows])
