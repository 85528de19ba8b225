"""The part of a model that learns, where the rest stays as it was."""

from collections.abc import Mapping

from torch import nn


class Learnt(nn.Module):
    """The parameters that learn, and nothing else: what a resumed run needs of a model whose rest is in a folder."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name.replace(".", "|"), parameter)  # torch forbids dots

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters by the names that they have in their model."""
        return {name.replace("|", "."): parameter for name, parameter in self.named_parameters()}
