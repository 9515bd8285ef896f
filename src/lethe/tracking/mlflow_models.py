"""Logged models: the export as pt2, and the file that gives MLflow a model's inputs and outputs."""

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.tracking.mlflow_store import silence

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from torch.nn import Module

log = logging.getLogger(__name__)


def export(module: "Module", shape: Sequence[int], folder: Path) -> None:
    """Export a model as pt2, which loads without this repository.

    Args:
        module: The model; it is moved to the CPU and to evaluation mode.
        shape: Of one input.
        folder: Created, and filled by MLflow.
    """
    import torch

    from lethe.models.without_triton import without_triton

    silence()
    with without_triton(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pytorch
        from mlflow.models import infer_signature

        example = torch.zeros(2, *shape)  # a batch of 2 leaves the batch size free; a batch of 1 would fix it
        module = module.cpu().eval()
        with torch.no_grad():
            signature = infer_signature(example.numpy(), module(example).numpy())
        mlflow.pytorch.save_model(
            module,
            str(folder),
            signature=signature,
            input_example=example.numpy(),
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            serialization_format="pt2",
        )


def describe(folder: Path, to: Path, run_id: str, model: "LoggedModel", shapes: Sequence[Sequence[int]]) -> None:
    """Write the `MLmodel` file of a logged model, or complete the one that its export has made.

    Args:
        folder: Of the model.
        to: Where the file is written.
        run_id: The run that logs it.
        model: MLflow's record of it.
        shapes: Of one input and of its logits.
    """
    import numpy
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    file = folder / "MLmodel"
    if file.exists():
        about = Model.load(str(file))
        about.run_id, about.model_id, about.model_uuid = run_id, model.model_id, model.model_id
    else:
        takes, gives = (Schema([TensorSpec(numpy.dtype("float32"), [-1, *shape])]) for shape in shapes)
        about = Model(run_id=run_id, model_id=model.model_id, model_uuid=model.model_id, signature=ModelSignature(takes, gives))
        about.add_flavor("safetensors", data="model.safetensors", about="model.json")
    about.artifact_path = model.artifact_location
    about.save(str(to))


def register(client: "MlflowClient", model_id: str, run_id: str, name: str, alias: str) -> None:
    """Register a logged model as the next version of a registered model. Done twice, there is one version.

    Args:
        client: Of the store.
        model_id: Of the logged model.
        run_id: The run that logged it.
        name: Of the registered model, which is created if there is none.
        alias: Moved to the version; "": none.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    if not any(model.name == name for model in client.search_registered_models(f"name = {quoted(name)}")):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = {quoted(name)} and run_id = '{run_id}'")
    model = client.get_logged_model(model_id)
    version = next((each for each in versions if each.source == model.artifact_location), None)
    if version is None:
        version = client.create_model_version(name, model.artifact_location, run_id, model_id=model_id)
        known = json.loads(model.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
        listed = json.dumps([*known, {"name": name, "version": version.version}])
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: listed})  # by which the model's page shows it
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    log.warning("registered in MLflow: %s version %s%s", name, version.version, f", alias {alias}" if alias else "")


def quoted(text: str) -> str:
    """A text as a value in a search of MLflow, which knows no escapes but two kinds of quotes."""
    return f'"{text}"' if "'" in text else f"'{text}'"
