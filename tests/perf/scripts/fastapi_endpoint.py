"""A plain endpoint that runs the pipeline in a function without async, as FastAPI's documentation recommends.

Arguments: the port, then the checkpoints' folders; each answers under its folder's name.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI
from PIL import Image
from transformers import pipeline


def add_endpoint(app: FastAPI, folder: str) -> None:
    classifier = pipeline("image-classification", model=folder)

    @app.post(f"/{Path(folder).name}")
    def classify(image: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[dict[str, Any]]:
        return list(classifier(Image.open(BytesIO(image))))


def main() -> None:
    port, *folders = sys.argv[1:]
    app = FastAPI()
    for folder in folders:
        add_endpoint(app, folder)
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
