"""What Qwen3-VL is asked with: words and pictures, without torchvision.

transformers' own processor cannot be made without its processor of videos, which needs torchvision, and this project
must do without it. Nothing here is asked about videos.
"""

from pathlib import Path

from transformers import AutoTokenizer, Qwen2VLImageProcessorPil


class Processor:
    """The tokenizer and the processor of pictures that lie in a Qwen3-VL processor's folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(str(folder), local_files_only=True)
        names = ("<|image_pad|>", "<|video_pad|>")
        self._kinds = {self.tokenizer.convert_tokens_to_ids(name): kind for kind, name in enumerate(names, 1)}

    def create_mm_token_type_ids(self, input_ids: list[list[int]]) -> list[list[int]]:
        """Of what kind each token is: 0 a word, 1 a piece of a picture, 2 one of a clip."""
        return [[self._kinds.get(token, 0) for token in text] for text in input_ids]
