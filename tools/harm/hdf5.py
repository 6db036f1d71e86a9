"""What HDF5 files can reach for, or grow to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from harm.good import Kind, weights_of
from harm.harm import Harm

Make = Callable[[h5py.Group, str, Path, tuple[int, ...]], None]
"""Makes something by a name in a group, where a weight of a shape was, in a folder that may hold other files."""


def hdf5(kind: Kind) -> Iterator[Harm]:
    if not kind.hdf5_name and kind.path != "model.keras":
        return

    def harm(name: str, change: Callable[[h5py.File, Path], None], may_change: bool = False) -> Harm:
        def do(folder: Path) -> None:
            with kind.opened_hdf5(folder) as file:
                change(file, folder)

        return Harm("HDF5", name, kind, do, may_change)

    for name, make in INSTEAD.items():
        yield harm(name, _instead(make), may_change=name == "another type")
    for name, grow in GROWN.items():
        yield harm(name, lambda file, folder, grow=grow: grow(file), may_change=name == "many datasets never written")


def _instead(make: Make) -> Callable[[h5py.File, Path], None]:
    """Have something else where the first weight was."""

    def change(file: h5py.File, folder: Path) -> None:
        weight = weights_of(file)[0]
        group, name, shape = weight.parent, weight.name.rpartition("/")[2], weight.shape
        del group[name]
        make(group, name, folder, shape)

    return change


def _elsewhere(folder: Path, shape: tuple[int, ...]) -> Path:
    with h5py.File(folder / "elsewhere.h5", "w") as other:
        other["kernel"] = np.ones(shape, "float32")
    return folder / "elsewhere.h5"


def _external_link(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group[name] = h5py.ExternalLink(str(_elsewhere(folder, shape)), "kernel")


def _external_storage(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    (folder / "raw").write_bytes(bytes(4 * int(np.prod(shape))))
    group.create_dataset(name, shape, "float32", external=str(folder / "raw"))


def _virtual(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource(str(_elsewhere(folder, shape)), "kernel", shape)
    group.create_virtual_dataset(name, layout)


def _soft_link_to_itself(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group[name] = h5py.SoftLink(f"{group.name}/{name}")


def _soft_link_to_nowhere(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group[name] = h5py.SoftLink("/nowhere")


def _never_written(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, (10**6, 10**6), "float32", chunks=(1000, 1000))


def _compressed(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, (2**26,), "float32", chunks=(2**22,), compression="gzip", fillvalue=0)
    group[name][: 2**22] = 1


def _strings(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, shape, h5py.string_dtype())


def _records(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, shape, np.dtype([("a", "f4"), ("b", "S10")]))


def _references(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, shape, h5py.ref_dtype)


def _group(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_group(name)


def _another_shape(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, (16, 16), "float32", chunks=(4, 4), compression="lzf", data=np.ones((16, 16)))


def _another_type(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
    group[name] = np.ones(shape, "float64")


INSTEAD: Mapping[str, Make] = {
    "an external link": _external_link,
    "external storage": _external_storage,
    "a virtual dataset": _virtual,
    "a soft link to itself": _soft_link_to_itself,
    "a soft link to nowhere": _soft_link_to_nowhere,
    "a dataset never written": _never_written,
    "a compressed dataset": _compressed,
    "strings for weights": _strings,
    "records for weights": _records,
    "references for weights": _references,
    "a group for a weight": _group,
    "another shape": _another_shape,
    "another type": _another_type,
}
"""What stands where a weight was."""


def _inside_itself(file: h5py.File) -> None:
    weights_of(file)[0].parent["again"] = file["/"]


def _doubling(file: h5py.File) -> None:
    group = weights_of(file)[0].parent
    for number in range(40):
        inner = file.create_group(f"level{number}")
        group["a"], group["b"] = inner, inner
        group = inner


def _deep(file: h5py.File) -> None:
    group = weights_of(file)[0].parent
    for _ in range(3000):
        group = group.create_group("g")


def _many(file: h5py.File) -> None:
    _add_many(weights_of(file)[0].parent)


def _many_weights(file: h5py.File) -> None:
    """As the weights of a layer, where the file lists them."""
    found: list[h5py.Group] = []
    file.visititems(lambda _, item: found.append(item) if "weight_names" in item.attrs else None)
    group = found[0] if found else weights_of(file)[0].parent
    group.attrs["weight_names"] = [name.encode() for name in _add_many(group)]


def _add_many(group: h5py.Group) -> list[str]:
    names = [f"more{number}" for number in range(200)]
    for name in names:
        group.create_dataset(name, (2**23,), "float32", chunks=(2**20,))
    return names


GROWN: Mapping[str, Callable[[h5py.File], None]] = {
    "a group inside itself": _inside_itself,
    "groups in two places, again and again": _doubling,
    "groups in groups": _deep,
    "many datasets never written": _many,
    "many datasets never written, as weights": _many_weights,
}
"""What comes besides the weights."""
