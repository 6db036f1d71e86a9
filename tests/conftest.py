import gc
import os
import zlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the garbage collector pass over what was imported, which is most of what it would look through."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `tensorflow` where Keras runs on another backend."""
    import keras

    if keras.backend.backend() != "tensorflow":
        left_out = [item for item in items if item.get_closest_marker("tensorflow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test random numbers of its own, the same in each run."""
    import keras

    keras.utils.set_random_seed(zlib.crc32(item.nodeid.encode()))
