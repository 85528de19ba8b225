"""What sentences leave open is decided as likely as it is, one value after the other."""

import pytest
import torch

from kinetograph.neural.models.completing import Answers, Completion, Config

WORLDS = ((3, 2, 2), (4,))  # of the first world the third attribute follows the second
WIDTH = 24
CONFIG = Config(WIDTH, WORLDS, 48)


def answers(world, values, said):
    return Answers(torch.tensor(world), torch.tensor(values), torch.tensor(said))


def sentences(count, seed):
    """Vectors of sentences and what is true of them. The first world's sentences say the first attribute, and never
    what follows: its second is 1 for one in four, its third the same as its second, or, of the first value, not there.
    """
    chance = torch.Generator().manual_seed(seed)
    world = torch.randint(0, 2, (count,), generator=chance)
    first = torch.randint(0, 3, (count,), generator=chance)
    second = (torch.rand(count, generator=chance) < 0.25).long()
    third = torch.where(first == 0, 2, second)
    values = torch.where(
        world[:, None] == 0, torch.stack([first, second, third], 1), first[:, None] * torch.eye(3)[0].long()
    )
    said = torch.tensor([True, False, False]).expand(count, -1)
    whole = torch.nn.functional.one_hot(3 * world + first, WIDTH).float()
    return whole, Answers(world, values, said)


@pytest.fixture(scope="module")
def learnt():
    torch.manual_seed(3)
    model = Completion(CONFIG)
    descent = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(200):
        error = model.error(*sentences(128, step))
        descent.zero_grad()
        error.backward()
        descent.step()
    return model.eval().requires_grad_(False)


def test_what_is_said_is_named_and_what_is_not_said_is_drawn(learnt):
    whole, true = sentences(400, 1000)
    found = learnt.complete(whole, torch.randn(400, 3, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(found.world, true.world)
    here = true.world == 0
    assert torch.equal(found.values[:, 0], true.values[:, 0])
    assert found.said[:, 0].all()
    assert not found.said[here, 1:].any()
    assert found.values[here, 1].float().mean() == pytest.approx(0.25, abs=0.1)
    other = here & (true.values[:, 0] > 0)
    assert torch.equal(found.values[other, 2], found.values[other, 1])  # decided by what was decided before
    assert (found.values[here & ~other, 2] == 2).all()  # what is not there, by what is said


def test_the_same_noise_decides_the_same_and_other_noise_otherwise(learnt):
    whole, _ = sentences(1, 4)
    whole = torch.nn.functional.one_hot(torch.tensor([1]), WIDTH).float().expand(60, -1)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    found = learnt.complete(whole, noise)
    assert torch.equal(found.values, learnt.complete(whole, noise).values)
    assert set(found.values[:, 1].tolist()) == {0, 1}


def test_what_is_unwanted_is_not_chosen_where_a_sentence_leaves_it_open_unless_there_is_nothing_else(learnt):
    one = torch.nn.functional.one_hot(torch.tensor([1]), WIDTH).float().expand(60, -1)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))

    def second(*unwanted):
        """The second attribute where sentences that say these values of it are unwanted."""
        with pytest.MonkeyPatch.context() as patch:
            named, said = learnt._named, torch.tensor([False, True, False])

            def heard(whole, world):
                values = torch.tensor([[0, value, 0] for value in unwanted], dtype=torch.long).reshape(-1, 3)
                return named(whole, world) if len(whole) == 60 else Answers(world, values, said.expand(len(values), -1))

            patch.setattr(learnt, "_named", heard)
            found = learnt.complete(one, noise, torch.zeros(len(unwanted), WIDTH))
        assert (found.values[:, 0] == 1).all()  # what is said stays
        return found.values[:, 1]

    usual = second()
    assert set(usual.tolist()) == {0, 1}
    assert (second(1) == 0).all()
    assert (second(0) == 1).all()
    assert torch.equal(second(0, 1), usual)


def test_nothing_is_told_before_it_is_learnt_and_every_value_has_a_row_of_its_own():
    model = Completion(CONFIG)
    true = answers([0, 1, 0], [[2, 1, 2], [3, 0, 0], [2, 1, 1]], [[True] * 3] * 3)
    assert not model.tell(true).any()
    torch.nn.init.normal_(model.told.weight)
    told = model.tell(true)
    assert not torch.equal(told[0], told[2])
    torch.testing.assert_close(told[1], model.told.weight[1] + model.told.weight[2 + 4 + 3 + 3 + 3])
    assert model.told.weight.shape == (2 + 4 + 3 + 3 + 5, WIDTH)


def test_errors_count_what_a_sentence_says_by_name_and_the_rest_by_what_is_usual():
    model = Completion(CONFIG)
    whole = torch.randn(2, WIDTH)
    true = answers([0, 0], [[2, 1, 2], [2, 1, 2]], [[True, True, True], [False, False, False]])
    model.error(whole[:1], Answers(*(part[:1] for part in true))).backward()
    assert all(head.weight.grad is None or not head.weight.grad.any() for head in model.usual[0])
    assert all(head.weight.grad.any() for head in model.named[0])
    assert all(head.weight.grad is None or not head.weight.grad.any() for head in model.named[1])
    model.zero_grad()
    model.error(whole[1:], Answers(*(part[1:] for part in true))).backward()
    assert all(head.weight.grad.any() for head in model.usual[0])
    assert model.error(whole[:0], Answers(*(part[:0] for part in true))) == 0  # of no sentence, nothing
