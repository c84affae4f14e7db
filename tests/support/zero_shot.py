"""Tiny zero-shot checkpoints with random weights, each with a tokenizer of its family."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
)
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION: dict[str, Any] = {"image_size": 64, "patch_size": 16, **LAYERS}
SQUARE = {"height": 64, "width": 64}
CORPUS = ["This is a photo of a cat.", "A dog, 2 birds and a ship on the sea!", "receipt passport selfie", "Ünïcödé 🐈"]


def _byte_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a token for each byte, alone and at the end of a word."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _sentencepiece_tokenizer(folder: Path) -> SiglipTokenizer:
    """SigLIP's tokenizer, trained on a few sentences."""
    trained = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=trained,
        vocab_size=80,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(trained.getvalue())
    return SiglipTokenizer(vocab_file=str(path))


def _gemma_tokenizer() -> Siglip2Tokenizer:
    """SigLIP 2's tokenizer with a token for each letter and each byte."""
    letters = sorted({letter for text in CORPUS for letter in text.lower().replace(" ", "▁")})
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return Siglip2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


TOKENIZERS: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
    "clip": lambda _: _byte_tokenizer(),
    "siglip": _sentencepiece_tokenizer,
    "siglip2": lambda _: _gemma_tokenizer(),
}
ZERO_SHOT = tuple(TOKENIZERS)


def make_zero_shot(folder: Path, family: str) -> Path:
    """Write a checkpoint with random weights. A SigLIP 2 of a fixed size is a SigLIP with another tokenizer."""
    folder.mkdir()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = TOKENIZERS[family](folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    text = {"vocab_size": len(tokenizer), **LAYERS}
    model: CLIPModel | SiglipModel
    if family == "clip":
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = CLIPModel(CLIPConfig(text_config=text | ends, vision_config=VISION, projection_dim=24))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    # Random weights give almost the same answer to everything: these make the answers differ.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.constant_(model.logit_scale, 1.5)
    model.save_pretrained(folder)
    if family == "clip":
        sizes: dict[str, Any] = {"size": {"shortest_edge": 64}, "crop_size": SQUARE}
    else:
        sizes = {"size": SQUARE, "resample": 3}
    kind = get_image_processor_class_from_name(
        "CLIPImageProcessorPil" if family == "clip" else "SiglipImageProcessorPil"
    )
    kind(**sizes).save_pretrained(folder)
    return folder
