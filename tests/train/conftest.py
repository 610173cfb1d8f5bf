"""One thread: the models are tiny, and the tests run beside others."""

import torch

torch.set_num_threads(1)
