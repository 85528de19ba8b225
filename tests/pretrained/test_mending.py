"""What is mended of diffusers' parts when they are loaded."""

import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler

from kinetograph.neural.pretrained import pipelines


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # of NumPy, to schedulers
@pytest.mark.parametrize("kind", [HeliosScheduler, HeliosDMDScheduler])
def test_the_noise_of_a_block_of_helios_has_spread_in_every_direction(kind):
    scheduler = kind()
    pipelines.mend(scheduler)
    gamma = scheduler.config.gamma
    assert gamma == pytest.approx(1 / 3, rel=2e-5)
    spread = torch.linalg.eigvalsh((1 + gamma) * torch.eye(4) - gamma * torch.ones(4, 4)).min()
    assert spread > 16 * torch.finfo(torch.float32).eps  # whatever a processor rounds
    calm = kind(gamma=0.2)
    pipelines.mend(calm)
    assert calm.config.gamma == 0.2
