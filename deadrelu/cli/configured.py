"""Configured: the model that the config.json of a Hugging Face folder describes, built by the installed transformers.

Nothing of the folder is run and nothing is downloaded: only architectures that the package itself has are built, and
settings that would fetch code (remote code, attention kernels, quantization) are dropped before transformers sees them.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..checkpoint import Checkpoint
from ..errors import InputError, ModelError

_FETCHING = re.compile(
    r"auto_map|.*implementation.*|quantization_config|use_kernels?|custom_pipelines?|trust_remote_code|"
    r"use_pretrained_backbone|backbone|backbone_kwargs|timm_.*|_name_or_path"
)
_DEPTH = re.compile(r"layer|depth|block|expert|group|stage")
_DEEPEST = 1024
_NESTED = 16
_ROOM = 1 << 24
_OTHERWISE = "name what builds the model: --model pkg.mod:factory"


def build_configured(checkpoint: Checkpoint) -> nn.Module:
    """Return the model of a checkpoint's `config.json`, its own weights not loaded yet.

    Raises:
        InputError: transformers is not installed.
        ModelError: it has no such architecture, or cannot build it of these settings.
    """
    config = checkpoint.config or {}
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    try:
        import transformers
    except ImportError:
        raise InputError(
            f"{checkpoint.path} is a folder of transformers, which is not installed: "
            f"pip install 'deadrelu[transformers]', or {_OTHERWISE}"
        ) from None
    kind = config.get("model_type")
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in known:
        raise ModelError(
            f"{checkpoint.path}: its config.json names the model_type {str(kind)[:80]!r}, which the installed "
            f"transformers does not have (code in the folder is never run); {_OTHERWISE}"
        )
    _bounded(config, checkpoint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = known[kind].from_dict({**_clean(config), "attn_implementation": "eager"})
            build = _builder(transformers, config, settings)
            with torch.device("meta"):
                _fitting(build(), checkpoint)
            model: nn.Module = build().eval()
            return model
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # settings of strangers make model code raise nearly anything
        said = next(iter(str(error).strip().splitlines()), "")
        raise ModelError(
            f"{checkpoint.path}: transformers cannot build {kind} of its config.json "
            f"({type(error).__name__}: {said[:200]}); {_OTHERWISE}"
        ) from error


def load_renamed(model: nn.Module, checkpoint: Checkpoint) -> nn.Module | None:
    """Return a model of transformers with the weights of an earlier release of it, whose names it knows to change.

    None if it is no such model, or something of the weights is missing or left over.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return None
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            made, told = type(model).from_pretrained(
                None,  # no place to look for files, nor code
                config=model.config,
                state_dict={name: checkpoint.weights[name] for name in checkpoint.weights},
                output_loading_info=True,
                attn_implementation="eager",
                dtype=torch.float32,
            )
    except Exception:  # the first refusal says what does not fit
        return None
    found: nn.Module = made
    return None if any(told.values()) else found.eval()


def _builder(transformers: Any, config: Mapping[str, Any], settings: Any) -> Any:
    """Return what builds the architecture that the weights were saved from, else the plain model of its type."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    found = getattr(transformers, name, None) if name.isidentifier() and not name.startswith("_") else None
    own = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if own and getattr(found, "config_class", None) is type(settings):
        return lambda: found._from_config(settings, attn_implementation="eager")  # type: ignore[union-attr]
    return lambda: transformers.AutoModel.from_config(settings, trust_remote_code=False, attn_implementation="eager")


def _clean(held: Any, depth: int = 0) -> Any:
    """Return settings without those that would fetch something, at every depth."""
    if depth > _NESTED:
        return None
    if isinstance(held, Mapping):
        return {k: _clean(v, depth + 1) for k, v in held.items() if not _FETCHING.fullmatch(str(k))}
    return [_clean(value, depth + 1) for value in held] if isinstance(held, list) else held


def _bounded(config: Any, checkpoint: Checkpoint, depth: int = 0) -> None:
    """Refuse a depth that the weights cannot have, before a loop over it begins."""
    if not isinstance(config, Mapping) or depth > _NESTED:
        return
    most = max(_DEEPEST, len(checkpoint.weights))
    for key, value in config.items():
        if type(value) is int and value > most and _DEPTH.search(str(key)):
            raise ModelError(
                f"{checkpoint.path}: its config.json says {str(key)[:80]} = {str(value)[:20]}, but there are "
                f"{len(checkpoint.weights)} weights; {_OTHERWISE}"
            )
        _bounded(value, checkpoint, depth + 1)


def _fitting(empty: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a model far larger than the weights, before its memory is asked for."""
    size = sum(p.numel() for p in empty.parameters())
    held = sum(math.prod(checkpoint.weights.shape(name)) for name in checkpoint.weights)
    if size > 2 * held + _ROOM:
        raise ModelError(
            f"{checkpoint.path}: its config.json describes {size:,} parameters, but the weights hold {held:,} numbers; "
            f"{_OTHERWISE}"
        )
