"""Makes the checkpoint that the contenders run: a ViT-base with random weights, the same at every run.

Argument: the folder to write it to.
"""

import sys

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
from transformers.utils import logging


def main() -> None:
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = ViTConfig(num_labels=1000)  # type: ignore[call-arg]
    ViTForImageClassification(config).save_pretrained(sys.argv[1])
    ViTImageProcessorPil().save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
