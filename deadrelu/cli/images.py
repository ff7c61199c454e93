"""Images: a folder of pictures as a dataset of float tensors (channels, height, width) in 0..1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_GREY = ("1", "L", "LA")
_GREY16 = ("I;16", "I;16B", "I;16L")


class ImageFolder(Dataset[Tensor]):
    """Every picture under `folder` (subfolders too, in the order of their paths), decoded when asked for.

    A picture is a tensor of shape (1, height, width) if it is grey and (3, height, width) otherwise, values in
    0..1, nothing else done to it: no crop, no resize, no normalisation. All must have one shape.

    Raises:
        DataError: Pillow is not installed, there are no pictures, one cannot be read, or their shapes differ.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._image = _pillow()
        self._paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not self._paths:
            raise DataError(f"{folder}: no pictures in it; expected files {'/'.join(SUFFIXES)}")
        first = self._shape(self._paths[0])
        for path in self._paths[1:]:
            shape = self._shape(path)
            if shape != first:
                raise DataError(
                    f"{folder}: pictures of different shapes, {self._paths[0].name} {_text(first)} and "
                    f"{path.name} {_text(shape)}; bring them to one size, or do it in --data pkg.mod:callable"
                )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self._paths[index]
        try:
            with self._image.open(path) as picture:
                return self._decode(picture)
        except Exception as error:
            raise _unreadable(path, error) from None

    def _decode(self, picture: Any) -> Tensor:
        if picture.mode in _GREY16:
            pixels = np.asarray(picture, dtype=np.float64)[None] / 65535
        elif picture.mode in _GREY:
            pixels = np.asarray(picture.convert("L"), dtype=np.float64)[None] / 255
        else:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float64).transpose(2, 0, 1) / 255
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self._dtype)

    def _shape(self, path: Path) -> tuple[int, int, int]:
        try:
            with self._image.open(path) as picture:  # reads the header alone
                grey = picture.mode in _GREY + _GREY16
                return (1 if grey else 3, picture.height, picture.width)
        except Exception as error:
            raise _unreadable(path, error) from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("a folder of images needs Pillow; pip install 'deadrelu[images]'") from None
    return Image


def _text(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: no readable picture ({type(error).__name__}); mend it or leave it out")
