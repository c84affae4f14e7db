"""The same model behind LitServe with batching, as in its documentation; runs in a separate environment.

Arguments: the port, the checkpoint's folder, max_batch_size, batch_timeout in seconds.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import litserve
import torch
from fastapi import Body
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Decodes each image to a tensor, which LitServe stacks; a batch goes through the model in one pass."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(api_path=f"/{Path(folder).name}", **options)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._processor = AutoImageProcessor.from_pretrained(self._folder)
        self._model = AutoModelForImageClassification.from_pretrained(self._folder).eval().to(device)
        self._device = device

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        image = Image.open(BytesIO(request)).convert("RGB")
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def predict(self, pixels: torch.Tensor) -> Any:
        return self._model(pixel_values=pixels.to(self._device)).logits.softmax(-1)

    def encode_response(self, output: torch.Tensor) -> list[dict[str, Any]]:
        scores, indices = output.topk(5)
        labels = self._model.config.id2label
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]


def main() -> None:
    port, folder, max_batch_size, batch_timeout_s = sys.argv[1:]
    api = Classifier(folder, max_batch_size=int(max_batch_size), batch_timeout=float(batch_timeout_s))
    server = litserve.LitServer(api)
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
