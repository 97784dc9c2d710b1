"""InstantAvatar (https://arxiv.org/abs/2212.10550) for nerfstudio: animatable avatars from a video of one person.

Importing the package imports no part of nerfstudio: its entry points are read while nerfstudio itself is half imported.
"""

import os
import sys
from typing import Any

from instantavatar_ns.utils import early_gpu, interrupts

if interrupts.is_ours(sys.argv):
    interrupts.hide_traceback()  # the imports that follow take seconds

# PyTorch's threads shall sleep while they wait for each other: where other work has the processors, too, busy waiting
# multiplies the time of small operations. This has an effect where PyTorch is not loaded yet, as in `instant-avatar`.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if early_gpu.is_wanted(sys.argv):
    early_gpu.begin_context()  # takes as long as the imports that follow

import numpy as np
import torch

from instantavatar_ns.utils import hidden_warnings

__version__ = "0.1.0"


def _allow_numpy_scalars_in_checkpoints() -> None:
    """Let `torch.load` read nerfstudio's checkpoints, which hold learning rates as `numpy.float64`.

    Since torch 2.6 `torch.load` rebuilds only registered classes, and nerfstudio 1.1.5 does not register these: without
    this, resuming, ns-eval, ns-render and ns-viewer fail. The scalar's constructor has one module name in numpy 1 and
    another in numpy 2; both are registered, so that a checkpoint survives a change of numpy.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return
    scalar: Any = np.float64(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    torch.serialization.add_safe_globals([*named, np.dtype, *dtypes])


_allow_numpy_scalars_in_checkpoints()
hidden_warnings.ignore()
