"""Samples of inputs in files of NumPy's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasbn.errors import OptionError, quoted


def check_sample_file(path: Path) -> None:
    """Find out without reading it whether a file may hold a sample.

    Raises:
        OptionError: if it does not exist, or its suffix is another one.
    """
    if path.suffix not in (".npy", ".npz"):
        raise OptionError(f"Sample {str(path)!r} must be a .npy or .npz file; write it with numpy.save or numpy.savez.")
    if not path.is_file():
        raise OptionError(f"Sample {str(path)!r} does not exist or is no file. Give the path of a .npy or .npz file.")


def load_sample(path: Path) -> Any:
    """An array, or arrays by the name of the input where a `.npz` file holds several or names one.

    Raises:
        OptionError: if the file cannot be read, or holds anything but numbers.
    """
    import numpy as np  # late, so that bad usage is answered at once

    try:
        content = np.load(path, allow_pickle=False)
        arrays = {"arr_0": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content}
    except Exception as error:
        raise OptionError(
            f"Sample {str(path)!r} cannot be read: {quoted(error)}. Write it anew with numpy.save or numpy.savez."
        ) from error
    _check_arrays(path, arrays)
    return arrays["arr_0"] if list(arrays) == ["arr_0"] else arrays


def _check_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse what is no sample of inputs, whatever the model is."""
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise OptionError(
                f"Sample {str(path)!r} holds {name!r} of type {array.dtype} and shape {array.shape}; it must be "
                "numbers, with the batch as the first axis."
            )
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name!r} {len(array)}" for name, array in arrays.items())
        raise OptionError(
            f"Sample {str(path)!r} holds different numbers of examples: {lengths}. Give as many of each input."
        )
